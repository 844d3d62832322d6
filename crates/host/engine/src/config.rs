//! Everything the engine needs to know from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of one engine; nothing in it changes while the engine runs.
pub struct EngineConfig {
    /// Where what must survive a reboot is kept (`--data-root`).
    pub data_root: PathBuf,
    /// Where what ends with the boot is kept (`--exec-root`); must not be shared with another daemon.
    pub exec_root: PathBuf,
    /// The parent of containers' cgroups when a container names none, such as `/skep` (`--cgroup-parent`). Everything
    /// below it is taken to be ours: what no record knows is killed when the engine opens. The shims are in `shims` there.
    pub cgroup_parent: String,
    /// The program that is run as `EXE shim DIR`. Opened when the engine is: what takes its name later is not executed.
    pub shim_exe: PathBuf,
    /// Name servers for containers that name none; empty means the machine's own.
    pub dns: Vec<String>,
    /// Search domains for containers that name none; empty means the machine's own.
    pub dns_search: Vec<String>,
    /// Resolver options for containers that name none; empty means the machine's own.
    pub dns_options: Vec<String>,
    /// The log driver of containers that name none: `json-file` or `none`.
    pub log_driver: String,
    /// Its options, such as `max-size`.
    pub log_options: BTreeMap<String, String>,
    /// How many files processes of containers may have open that name no limit; `None` is as many as this process.
    pub open_files: Option<OpenFiles>,
    /// The image store.
    pub images: images::Store,
    /// This machine's networks.
    pub network: network::Network,
}

/// A limit of open files; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force.
    pub soft: u64,
    /// How far a process may raise it.
    pub hard: u64,
}
