//! What can go wrong with the log, and what to do about it.

use std::io;
use std::path::PathBuf;

use store::ApplyError;

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made.
    #[error("create the directory `{path}`")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log's file is damaged, or of another format.
    #[error(
        "the swarm's log `{path}` cannot be used; restore the swarm directory from a backup, or leave the swarm with `--force` and initialise it again"
    )]
    Log {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("the swarm's log `{path}` is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The snapshot's file is damaged, or of another format.
    #[error(
        "the swarm's snapshot `{path}` cannot be used; restore the swarm directory from a backup, or leave the swarm with `--force` and initialise it again"
    )]
    Snapshot {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is on disk was sealed by a key that was not given.
    #[error("the swarm's log `{path}` is sealed by another key")]
    WrongKey {
        /// Which file.
        path: PathBuf,
    },
    /// openraft refused to start, or stopped at once.
    #[error("start the replicated log")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No leader was found in time.
    #[error("no leader after {waited_ms} ms")]
    NoLeader {
        /// How long was waited.
        waited_ms: u64,
    },
}

/// Why a proposal was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Committed, but the store refused it: nothing has changed.
    #[error("the store refused the change")]
    Refused(#[source] ApplyError),
    /// Bigger than [`MAX_PROPOSAL_BYTES`](crate::MAX_PROPOSAL_BYTES): nothing has changed.
    #[error("the change has {bytes} bytes, more than one log entry may have")]
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
    },
    /// The change cannot be encoded: nothing has changed.
    #[error("encode the change")]
    Encode(#[source] serde_json::Error),
    /// This manager does not lead: nothing has changed.
    #[error("this manager is not the leader")]
    NotLeader,
    /// Leadership was lost while it was being committed: whether it has changed anything is unknown.
    #[error("leadership changed while the change was being committed")]
    Unknown,
    /// The log stopped, or its disk failed.
    #[error("the replicated log has stopped")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why another manager's call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The caller belongs to another swarm, or to one that was left behind by a forced new cluster.
    #[error("the caller's log has the epoch {theirs:x}, this manager's has {ours:x}")]
    Epoch {
        /// Of the caller.
        theirs: u64,
        /// Of this manager.
        ours: u64,
    },
    /// The call is meant for another manager.
    #[error("the call is for the manager {wanted:x}, this is {this:x}")]
    OtherMember {
        /// Whom it is for.
        wanted: u64,
        /// Who this is.
        this: u64,
    },
    /// The body does not parse, or is of a newer format.
    #[error("the call cannot be read")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The snapshot could not be written.
    #[error("write the snapshot")]
    Disk(#[source] io::Error),
    /// The snapshot's stream broke off.
    #[error("the snapshot was cut off")]
    CutOff(#[source] io::Error),
    /// The log stopped, or its disk failed.
    #[error("the replicated log has stopped")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why the key was not changed. Both keys are needed until it was.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// Entries of the log, or the snapshot, could not be sealed again.
    #[error("seal the swarm's log by the new key")]
    Write(#[source] io::Error),
}
