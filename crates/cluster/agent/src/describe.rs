//! What this node says of itself to the managers.

use objects::{EngineDescription, Labels, NodeDescription, Platform, PluginDescription, Resources};
use rustix::system::uname;

use crate::node::SwarmNodeConfig;

/// Source: moby, `daemon/cluster/executor/container/executor.go` `Describe`.
pub(crate) fn describe(config: &SwarmNodeConfig) -> NodeDescription {
    let labels: Labels = config
        .engine_labels
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
