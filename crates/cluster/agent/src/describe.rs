//! What this node says of itself to the managers, kept up to date.
//!
//! In: the machine, the daemon's flags, this node's certificate. Out: a description, and a new one when anything about it
//! changed: sessions then change over.

use std::time::Duration;

use objects::{
    EngineDescription, Labels, Nanos, NodeDescription, Platform, PluginDescription, Resources, Timestamp,
};
use rustix::system::uname;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::node::SwarmNodeConfig;
use crate::requests;
use crate::ties::Ties;

/// How often the machine is looked at. Source: reference 5 (20 s).
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// A clock that moved by this much between two looks was set. chosen: what keeps clocks in time moves them by seconds.
const SET_BY: Duration = Duration::from_secs(60);

/// Keeps the description of a member up to date until `stopping`. `labels` are those of the daemon, which may be
/// configured anew while it runs.
pub(crate) async fn keep(
    config: SwarmNodeConfig,
    mut labels: watch::Receiver<Vec<String>>,
    ties: Ties,
    stopping: CancellationToken,
) {
    let mut certified = ties.credentials.follow();
    let mut clock = Clock::now();
    loop {
        let tls_info = certified.borrow_and_update().tls_info();
        let next = NodeDescription { tls_info, ..describe(&config, &labels.borrow_and_update().clone()) };
        ties.description.send_if_modified(|known| {
            let is_news = *known != next;
            *known = next;
            // A session also tells this node's time.
            is_news || clock.was_set()
        });
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Ok(()) = certified.changed() => {}
            Ok(()) = labels.changed() => {}
        }
    }
}

/// Two clocks at one moment, of which only one can be set.
struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Clock {
    fn now() -> Self {
        Self { wall: requests::now(), steady: Instant::now() }
    }

    /// Whether the machine's clock was set since this was asked last.
    fn was_set(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        let expected = before.wall + Nanos::from(self.steady - before.steady);
        self.wall.since(expected).0.unsigned_abs() > u64::try_from(SET_BY.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Source: moby, `daemon/cluster/executor/container/executor.go` `Describe`.
pub(crate) fn describe(config: &SwarmNodeConfig, engine_labels: &[String]) -> NodeDescription {
    let labels: Labels = engine_labels
        .iter()
        .map(|label| label.split_once('=').unwrap_or((label, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    NodeDescription {
        hostname: config.hostname.clone(),
        platform: Platform {
            architecture: uname().machine().to_string_lossy().into_owned(),
            os: "linux".to_owned(),
        },
        resources: Resources { generic_resources: config.generic_resources.clone(), ..resources() },
        engine: EngineDescription {
            engine_version: config.engine_version.clone(),
            labels,
            plugins: plugins(),
        },
        ..NodeDescription::default()
    }
}

fn resources() -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = rustix::system::sysinfo();
    let bytes = u128::from(memory.totalram as u64) * u128::from(memory.mem_unit as u64);
    Resources {
        nano_cpus: i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000),
        memory_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        ..Resources::default()
    }
}

/// The drivers this engine has, by the kinds that filters ask for.
fn plugins() -> Vec<PluginDescription> {
    let all = [
        ("Log", "json-file"),
        ("Log", "none"),
        ("Network", "bridge"),
        ("Network", "host"),
        ("Network", "null"),
        ("Volume", "local"),
    ];
    all.into_iter()
        .map(|(kind, name)| PluginDescription { kind: kind.to_owned(), name: name.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed_once() {
        let mut clock = Clock::now();
        assert!(!clock.was_set());
        for off in [86_400, -86_400] {
            clock.wall = clock.wall + Nanos::from_secs(off);
            assert!(clock.was_set());
            assert!(!clock.was_set());
        }
    }
}
