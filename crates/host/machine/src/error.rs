//! What can go wrong with a machine.

use std::io;
use std::path::PathBuf;

/// Why a machine did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the machine cannot be used.
    #[error("{doing} `{}`", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The network refused.
    #[error("{doing}")]
    Network {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: netlink::NetlinkError,
    },
    /// It is off.
    #[error("machine {name} is off; switch it on with `skep play start {name}`")]
    Off {
        /// Which.
        name: String,
    },
    /// Its daemon was told to stop and is still there; one that is halted by a signal does not hear it.
    #[error("the daemon of machine {name} does not stop; `skep play kill --daemon {name}` ends it at once")]
    DoesNotStop {
        /// Which.
        name: String,
    },
    /// It went off while it booted; its console tells why.
    #[error("machine {name} did not boot: {console}")]
    DidNotBoot {
        /// Which.
        name: String,
        /// The end of its console.
        console: String,
    },
    /// Its control groups cannot be found or removed.
    #[error("remove the control groups below `{path}`")]
    Cgroups {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: runtime::cgroup::CgroupError,
    },
}

/// Names what was tried on a file.
pub(crate) fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.to_owned();
    move |source| MachineError::File { doing, path, source }
}

/// Names what the kernel was asked for.
pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> MachineError {
    move |source| MachineError::System { doing, source: source.into() }
}

/// Names what the network was asked for.
pub(crate) fn network(doing: &'static str) -> impl FnOnce(netlink::NetlinkError) -> MachineError {
    move |source| MachineError::Network { doing, source }
}
