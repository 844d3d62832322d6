//! What the tasks of one group ask of a node, worked out once per group.
//!
//! In: one task of the group, the networks. Out: what the filters compare. Never looks at a node.

use objects::{Constraint, MountType, Platform, Task};
use store::Store;

use crate::loads::Weight;

/// A driver that a node must have: its kind and name.
pub(crate) type Plugin = (&'static str, String);

/// What the tasks of a group ask of a node.
#[derive(Debug)]
pub(crate) struct Demand {
    /// What each of them adds to its node.
    pub(crate) weight: Weight,
    /// `None` when a constraint does not parse: no node satisfies it.
    pub(crate) constraints: Option<Vec<Constraint>>,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) plugins: Vec<Plugin>,
    /// Whether they are on a network whose traffic is encrypted.
    pub(crate) is_encrypted: bool,
    /// Zero is unlimited.
    pub(crate) max_replicas: u64,
    /// Labels to spread over, outermost first.
    pub(crate) spread: Vec<String>,
}

impl Demand {
    /// `store` knows the networks.
    pub(crate) fn of(task: &Task, store: &Store) -> Self {
        let placement = task.spec.placement.clone().unwrap_or_default();
        let spread = placement
            .preferences
            .iter()
            .filter_map(|preference| preference.spread.as_ref())
            .map(|spread| spread.spread_descriptor.clone())
            .filter(|descriptor| is_label(descriptor))
            .collect();
        Self {
            weight: Weight { is_ranked: true, ..Weight::of(task) },
            constraints: Constraint::parse_all(&placement.constraints).ok(),
            platforms: placement.platforms,
            plugins: plugins(task),
            is_encrypted: is_encrypted(task, store),
            max_replicas: placement.max_replicas,
            spread,
        }
    }
}

/// Only labels can be spread over; other descriptors are ignored, as Swarm does.
fn is_label(descriptor: &str) -> bool {
    ["node.labels.", "engine.labels."].iter().any(|prefix| {
        descriptor.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && descriptor.len() > prefix.len()
    })
}

fn is_encrypted(task: &Task, store: &Store) -> bool {
    let networks =
        task.networks_attachments.iter().filter_map(|attachment| store.network(&attachment.network));
    networks.into_iter().any(|network| network.is_encrypted())
}

fn plugins(task: &Task) -> Vec<Plugin> {
    let mut plugins = Vec::new();
    if let Some(driver) = &task.internal.log_driver
        && !matches!(driver.name.as_str(), "" | "none")
    {
        plugins.push(("Log", driver.name.clone()));
    }
    let mounts = task.spec.container_spec.iter().flat_map(|container| &container.mounts);
    for mount in mounts.filter(|mount| mount.kind == MountType::Volume) {
        let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        if let Some(driver) = driver.filter(|driver| !matches!(driver.name.as_str(), "" | "local")) {
            plugins.push(("Volume", driver.name.clone()));
        }
    }
    plugins
}
