//! What can go wrong between this process and the kernel's netlink sockets.
//!
//! Keeps the errno and the kernel's extended acknowledgement apart, so that callers match on the first and people read
//! the second. Never retries.

use std::io;

/// A netlink operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened or bound (no permission, or a kernel without this protocol).
    #[error("open netlink socket")]
    Open(#[source] io::Error),
    /// Sending failed.
    #[error("send netlink request `{operation}`")]
    Send {
        /// What was asked for.
        operation: &'static str,
        /// Why it was not sent.
        #[source]
        source: io::Error,
    },
    /// Receiving the answer failed.
    #[error("receive netlink answer to `{operation}`")]
    Receive {
        /// What was asked for.
        operation: &'static str,
        /// Why nothing was received.
        #[source]
        source: io::Error,
    },
    /// The kernel refused. `explanation` is its extended acknowledgement, empty when it gave none.
    #[error("{operation}{}{explanation}", if explanation.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The kernel's explanation in its own words, or empty.
        explanation: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A name does not fit where the kernel stores it.
    #[error("name `{0}` is empty, too long or contains a slash, a blank or a zero byte")]
    Name(String),
    /// A link that the operation needs does not exist.
    #[error("link `{0}` not found")]
    NoLink(String),
    /// The kernel's answer could not be understood.
    #[error("malformed netlink answer to `{0}`")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The errno the kernel gave, for callers that treat some of them as success.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source)
            | Self::Send { source, .. }
            | Self::Receive { source, .. }
            | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Name(_) | Self::NoLink(_) | Self::Malformed(_) => None,
        }
    }

    /// True when the object exists already (`EEXIST`).
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// True when the object is not there (`ENOENT`, `ENODEV`, `ESRCH`, `EADDRNOTAVAIL`).
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoLink(_))
            || matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}
