//! The replicated log under the store. The only user of openraft.
//!
//! ```text
//!  propose(writes) ─► openraft ─► log (redb, one fsync per batch) ─► apply ─► store::Store
//!                                                                     │          │ every 10,000 entries
//!                                                  changes, in order ◄┘          ▼
//!                                                  (`ChangeFeed`)             snapshot file
//! ```
//!
//! Every manager applies the same entries in the same order with the time that the proposer wrote into them, so every
//! manager's store is the same. What is on disk has shapes of this crate's own behind a version byte; openraft's types
//! are never written.

mod checksum;
mod command;
mod consensus;
mod encoding;
mod error;
mod feed;
mod log;
mod machine;
mod peers;
mod snapshot;
mod writer;

pub use command::MAX_PROPOSAL_BYTES;
pub use consensus::{Applied, Consensus, LeadershipWatch, RaftConfig};
pub use error::{OpenError, ProposeError};
pub use feed::{ChangeFeed, Commit, FeedItem};
