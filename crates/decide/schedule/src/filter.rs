//! Decides whether a node can take one more task of a group (reference, section 3).
//!
//! In: the demand of the group, and the load of a node. Out: nothing, or the first filter that refuses. The order of the
//! filters is part of the behaviour: only the first refusal is counted.

use objects::{Node, Platform};

use crate::demand::{Demand, Plugin};
use crate::loads::Load;

/// The filters in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filter {
    Ready,
    Resource,
    Plugin,
    Encryption,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Filter {
    /// Whether a task that ends elsewhere on the node may change the answer.
    pub(crate) fn is_about_capacity(self) -> bool {
        matches!(self, Self::Resource | Self::HostPort | Self::MaxReplicas)
    }
}

/// The first filter that refuses the node, if one does.
pub(crate) fn refuse(demand: &Demand, load: &Load) -> Option<Filter> {
    let Some(node) = &load.node else { return Some(Filter::Ready) };
    if !node.is_available() {
        return Some(Filter::Ready);
    }
    if !has_resources(demand, load, node) {
        return Some(Filter::Resource);
    }
    if !demand.plugins.iter().all(|plugin| has_plugin(node, plugin)) {
        return Some(Filter::Plugin);
    }
    if demand.is_encrypted && node.internal.encryption_generation == 0 {
        return Some(Filter::Encryption);
    }
    let satisfies = demand
        .constraints
        .as_ref()
        .is_some_and(|constraints| constraints.iter().all(|constraint| constraint.is_satisfied_by(node)));
    if !satisfies {
        return Some(Filter::Constraint);
    }
    if !has_platform(demand, node) {
        return Some(Filter::Platform);
    }
    if demand.weight.ports.iter().any(|port| load.ports.contains_key(port)) {
        return Some(Filter::HostPort);
    }
    if demand.max_replicas > 0 && load.of_service(&demand.weight.service) >= demand.max_replicas {
        return Some(Filter::MaxReplicas);
    }
    None
}

fn has_resources(demand: &Demand, load: &Load, node: &Node) -> bool {
    let total = &node.description.resources;
    let fits = |wanted: i64, used: i64, total: i64| wanted == 0 || wanted <= total - used;
    fits(demand.weight.nano_cpus, load.nano_cpus, total.nano_cpus)
        && fits(demand.weight.memory_bytes, load.memory_bytes, total.memory_bytes)
}

fn has_plugin(node: &Node, (kind, name): &Plugin) -> bool {
    let plugins = &node.description.engine.plugins;
    let mut of_kind = plugins.iter().filter(|plugin| plugin.kind == *kind).peekable();
    // Nodes of old engines report no log drivers at all; that says nothing.
    if *kind == "Log" && of_kind.peek().is_none() {
        return true;
    }
    of_kind.any(|plugin| plugin.name == *name || plugin.name == format!("{name}:latest"))
}

fn has_platform(demand: &Demand, node: &Node) -> bool {
    let own = &node.description.platform;
    demand.platforms.is_empty() || demand.platforms.iter().any(|wanted| is_same_platform(wanted, own))
}

fn is_same_platform(wanted: &Platform, own: &Platform) -> bool {
    let is_os = wanted.os.is_empty() || wanted.os.eq_ignore_ascii_case(&own.os);
    let is_arch = wanted.architecture.is_empty()
        || architecture(&wanted.architecture) == architecture(&own.architecture);
    is_os && is_arch
}

/// One name for each architecture. Source: moby/swarmkit, `manager/scheduler/filter.go`.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
