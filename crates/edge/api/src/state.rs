//! What handlers work on: the engine, the images, the swarm, and what the daemon knows about itself.
//!
//! In: handles made by whoever starts the daemon. Out: shared references. Never opens anything.

use std::sync::Arc;

use agent::SwarmNode;
use engine::Engine;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::facts::HostFacts;

/// Everything the API needs. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Containers, volumes, events of this machine.
    pub engine: Engine,
    /// Images of this machine.
    pub images: images::Store,
    /// This node's part in a swarm.
    pub swarm: SwarmNode,
    /// Flags and identity of the daemon; replaced on reload.
    pub daemon: watch::Receiver<Arc<DaemonInfo>>,
    /// The machine, as it was when the daemon started.
    pub host: Arc<HostFacts>,
    /// Ends streams that would otherwise never end; the token given to [`crate::serve`].
    pub shutdown: CancellationToken,
}

/// Identity and flags of the daemon, as `info` and `version` show them.
#[derive(Debug, Clone, Default)]
pub struct DaemonInfo {
    /// A UUID that stays with the data root.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Version of this program, as `docker version` shows it.
    pub version: String,
    /// Commit it was built from; may be empty.
    pub git_commit: String,
    /// RFC 3339; may be empty.
    pub build_time: String,
    /// `--data-root`.
    pub data_root: String,
    /// `--label`, each `key=value`.
    pub labels: Vec<String>,
    /// `--log-level debug`.
    pub is_debug: bool,
    /// `--insecure-registry`: hosts and CIDRs.
    pub insecure_registries: Vec<String>,
    /// `--registry-mirror`.
    pub registry_mirrors: Vec<String>,
    /// `--log-driver`.
    pub log_driver: String,
    /// `--default-address-pool`: base and size.
    pub address_pools: Vec<(String, u8)>,
    /// Texts for the end of `docker info`.
    pub warnings: Vec<String>,
}

impl AppState {
    /// The daemon's identity and flags as they are now.
    pub(crate) fn daemon(&self) -> Arc<DaemonInfo> {
        self.daemon.borrow().clone()
    }
}
