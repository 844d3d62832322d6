//! What a shim is told before it starts, and the names of the files in its directory.
//!
//! In: the engine's decisions. Out: `spec.json`. Never holds anything that changes while the container runs.

use logs::LogSpec;
use serde::{Deserialize, Serialize};

use crate::ResolverSpec;

/// The shim's orders, written by the daemon.
pub const SPEC_FILE: &str = "spec.json";

/// The socket the shim answers on while it lives.
pub const SOCKET_FILE: &str = "shim.sock";

/// Which processes these are, written by the shim before it reports them.
pub const STATE_FILE: &str = "shim.json";

/// How it ended: an [`crate::Exit`]. Written once, after the last line of the log.
pub const EXIT_FILE: &str = "exit.json";

/// Newest format of [`ShimSpec`] that this shim reads.
pub(crate) const SPEC_VERSION: u32 = 1;

/// Everything a shim needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShimSpec {
    /// Format of this value; set by [`ShimSpec::new`].
    pub version: u32,
    /// What is started.
    pub launch: Launch,
    /// What becomes of its output. For an exec: [`LogSpec::None`].
    pub log: LogSpec,
    /// Whether standard input closes for good when the first client that was attached to it is done (Docker's
    /// `StdinOnce`). Without effect on a terminal.
    pub stdin_once: bool,
    /// The resolver that the shim is for its container; `None` where it has none: execs, and containers that have no network
    /// namespace of their own or read the machine's resolvers themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ResolverSpec>,
}

/// What a shim starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// A container. Its cgroup is killed and removed when its first process ends.
    Container(Box<runtime::Spec>),
    /// One more process in a running container. What it leaves running in the background stays.
    Exec(Box<runtime::ExecSpec>),
}

impl ShimSpec {
    /// Orders in the newest format, without a resolver.
    pub fn new(launch: Launch, log: LogSpec, stdin_once: bool) -> Self {
        Self { version: SPEC_VERSION, launch, log, stdin_once, resolver: None }
    }

    /// The process that is started.
    pub fn process(&self) -> &runtime::ProcessSpec {
        match &self.launch {
            Launch::Container(spec) => &spec.process,
            Launch::Exec(spec) => &spec.process,
        }
    }
}
