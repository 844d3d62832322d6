//! What the daemon says of itself in `info` and `version`.

use super::config::Config;
use anyhow::Context as _;
use api::DaemonInfo;
use std::fs;
use std::path::Path;

/// Identity and flags as the API shows them.
pub(crate) fn describe(config: &Config) -> anyhow::Result<DaemonInfo> {
    Ok(DaemonInfo {
        id: engine_id(&config.data_root)?,
        name: hostname(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("SKEP_GIT_COMMIT").unwrap_or_default().to_owned(),
        build_time: option_env!("SKEP_BUILD_TIME").unwrap_or_default().to_owned(),
        data_root: config.data_root.display().to_string(),
        labels: config.labels.clone(),
        is_debug: config.log_level == observe::Level::Debug,
        insecure_registries: config.registries.insecure.clone(),
        registry_mirrors: config.registries.mirrors.clone(),
        log_driver: config.log_driver.clone(),
        address_pools: config.pools.iter().map(|pool| (pool.base.to_string(), pool.size)).collect(),
        warnings: Vec::new(),
    })
}

/// This machine's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A UUID made once per data root.
fn engine_id(data_root: &Path) -> anyhow::Result<String> {
    let path = data_root.join("engine-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make an engine id")?;
    let temporary = data_root.join("engine-id.new");
    fs::write(&temporary, &fresh)
        .and_then(|()| fs::rename(&temporary, &path))
        .context("write the engine id")?;
    Ok(fresh.trim().to_owned())
}
