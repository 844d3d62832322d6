//! What all objects have in common: version and times; small shapes that several objects use.
//!
//! Never changed by a decision: the store stamps them when a write is applied.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::json::shape;

/// Labels of an object or a container.
pub type Labels = BTreeMap<String, String>;

shape! {
    /// Which write made an object what it is: the raft index of its newest write.
    #[derive(Copy, Eq, PartialOrd, Ord)]
    pub struct Version {
        /// The raft index; an update must name the one it read, or is refused with `update out of sequence`.
        pub index: u64,
    }

    /// Version and times of an object, stamped by the store.
    #[derive(Copy, Eq)]
    pub struct Meta {
        always {
            /// Index of the newest write.
            pub version: Version,
            /// When the object was first written.
            pub created_at: Timestamp,
            /// When the object was last written.
            pub updated_at: Timestamp,
        }
    }

    /// A driver (of logs, of networks, of volumes) with its options.
    #[derive(Eq)]
    pub struct Driver {
        /// Name of the driver; empty is the default one.
        pub name: String,
        /// Options as the driver knows them.
        pub options: BTreeMap<String, String>,
    }
}
