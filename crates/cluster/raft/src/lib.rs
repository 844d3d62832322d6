//! The replicated log under the store. The only user of openraft.
//!
//! ```text
//!  propose(writes) ─► openraft ─► log (redb, one fsync per batch) ─► apply ─► store::Store
//!                                                                     │          │ every 10,000 entries
//!                                                  changes, in order ◄┘          ▼
//!                                                  (`ChangeFeed`)             snapshot file
//! ```
//!
//! Managers talk over a `Transport` that the caller provides; `keeper` watches who leads, `vigil` whether the leader lives,
//! `pacemaker` beats, `lease` tells when a leader reads without asking.
//!
//! Every manager applies the same entries in the same order with the time that the proposer wrote into them, so every
//! manager's store is the same. What is on disk has shapes of this crate's own behind a version byte; openraft's types
//! are never written.

mod answer;
mod command;
mod consensus;
mod disk;
mod encoding;
mod error;
mod feed;
mod keeper;
mod lease;
mod link;
mod log;
mod machine;
mod members;
mod messages;
mod open;
mod pacemaker;
mod peers;
pub mod runtime;
mod sealing;
mod snapshot;
mod tempo;
mod timing;
mod transport;
mod vigil;
mod writer;

pub use command::MAX_PROPOSAL_BYTES;
pub use consensus::{Applied, Consensus, LeadershipWatch};
pub use disk::{Directory, Disk, DiskFile, Open};
pub use error::{AnswerError, OpenError, ProposeError, RekeyError};
pub use feed::{ChangeFeed, Commit, FeedItem};
pub use members::{MemberError, MemberState, Members, Progress, TransferError};
pub use open::{RaftConfig, Start};
pub use runtime::{Simulation, World, simulate};
pub use sealing::{DATA_KEY_BYTES, DataKey, DataKeys};
pub use transport::{Call, CallError, Member, NoTransport, SnapshotStream, Transport};
