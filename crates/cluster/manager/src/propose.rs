//! How the leader changes the store: read, decide, commit.
//!
//! In: a function from the store to writes. Out: the commit, or the function's error. Every write names the version it
//! was decided on, so decisions may be under way side by side and share an fsync; one that lost a race is made again on
//! the new state, a limited number of times.

use std::error::Error;
use std::time::Duration;

use objects::IdSource;
use raft::{Applied, ProposeError};
use store::{ApplyError, Store, Write};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;

/// How often a decision is made again. chosen: a decision is made in microseconds and a race needs another commit just
/// then; more than a few in a row is a bug to report.
const ATTEMPTS: usize = 5;

/// Wait between two attempts to settle what is under way. chosen: the quorum that is missing takes longer to return.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// Decisions under way side by side. chosen: what the log takes at a time.
const SIDE_BY_SIDE: u32 = 1024;

/// How a decision gets along with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The versions of what it writes are all it depends on.
    Others,
    /// It depends on more than it writes (on every published port, on the number of managers): one of these at a time,
    /// the control loop's included.
    Nobody,
}

/// Who may decide now.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Held from reading the store to the commit by whoever decides [`Beside::Nobody`].
    alone: Semaphore,
    /// All of it is taken by a control loop that keeps losing races.
    room: Semaphore,
}

/// A right to decide, until it is dropped.
pub(crate) struct Turn<'a> {
    _alone: Option<SemaphorePermit<'a>>,
    _room: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { alone: Semaphore::new(1), room: Semaphore::new(SIDE_BY_SIDE as usize) }
    }

    /// Waits for the turn to decide.
    async fn take(&self, beside: Beside) -> Result<Turn<'_>, ManagerError> {
        let alone = match beside {
            Beside::Others => None,
            Beside::Nobody => Some(self.alone.acquire().await.map_err(|_| ManagerError::Stopping)?),
        };
        let room = self.room.acquire().await.map_err(|_| ManagerError::Stopping)?;
        Ok(Turn { _alone: alone, _room: Some(room) })
    }

    /// The turn of the control loop. With `hush` nothing else is committed while it decides.
    pub(crate) async fn take_control(&self, hush: bool) -> Result<Turn<'_>, ManagerError> {
        let alone = Some(self.alone.acquire().await.map_err(|_| ManagerError::Stopping)?);
        let places = if hush { SIDE_BY_SIDE } else { 1 };
        let room = self.room.acquire_many(places).await.map_err(|_| ManagerError::Stopping)?;
        Ok(Turn { _alone: alone, _room: Some(room) })
    }

    /// Nobody decides any more.
    pub(crate) fn close(&self) {
        self.alone.close();
        self.room.close();
    }
}

/// What a decision gave.
#[derive(Debug)]
pub(crate) struct Decided<T> {
    /// Besides its writes.
    pub(crate) value: T,
    /// Whoever has applied this index of the log sees it.
    pub(crate) applied: u64,
}

impl Manager {
    /// Commits `writes` as they are.
    pub(crate) async fn propose(&self, writes: Vec<Write>) -> Result<Applied, ManagerError> {
        Ok(self.inner.consensus.propose(clock::now(), writes).await?)
    }

    /// Commits an empty entry. What this leader proposed without an answer may still be in its log, to be committed later:
    /// once an entry after it is applied, the store has it or it never will be. So does the store have everything that
    /// was ever acknowledged.
    pub(crate) async fn settle(&self) -> Result<(), ProposeError> {
        self.inner.consensus.propose(clock::now(), Vec::new()).await.map(drop)
    }

    /// As [`Self::settle`], again and again; `false` when the log has stopped.
    pub(crate) async fn settled(&self) -> bool {
        loop {
            match self.settle().await {
                Ok(()) => return true,
                Err(ProposeError::Stopped(_)) => return false,
                Err(error) => tracing::debug!(
                    error = &error as &dyn Error,
                    "whether everything that was proposed is committed is not known yet"
                ),
            }
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
    }

    /// Decides on the store as it is and commits that; gives what the decision gave besides its writes.
    ///
    /// Nothing is committed when there is nothing to write. The leader alone may do this: elsewhere the commit is
    /// refused.
    pub(crate) async fn change<T>(
        &self,
        beside: Beside,
        decide: impl Fn(&Store, &mut IdSource) -> Result<(T, Vec<Write>), ManagerError>,
    ) -> Result<Decided<T>, ManagerError> {
        let _turn = self.inner.turns.take(beside).await?;
        for _ in 1..ATTEMPTS {
            match self.try_change(&decide).await {
                // What an earlier attempt made was on its way into the store: the next decision finds it there.
                Err(ManagerError::OutOfSequence | ManagerError::Store(ApplyError::Exists { .. })) => {}
                result => return result,
            }
        }
        self.try_change(&decide).await
    }

    async fn try_change<T>(
        &self,
        decide: &impl Fn(&Store, &mut IdSource) -> Result<(T, Vec<Write>), ManagerError>,
    ) -> Result<Decided<T>, ManagerError> {
        let (value, writes, applied) = {
            let store = self.inner.consensus.read();
            let mut ids = self.inner.ids.lock().expect("drawing ids does not panic");
            let (value, writes) = decide(&store, &mut ids)?;
            (value, writes, store.applied())
        };
        if writes.is_empty() {
            return Ok(Decided { value, applied });
        }
        let applied = self.propose(writes).await?.index;
        Ok(Decided { value, applied })
    }
}

/// Whether what was proposed may be committed yet, although nobody said so.
pub(crate) fn is_open(error: &ProposeError) -> bool {
    !matches!(error, ProposeError::Refused(_) | ProposeError::TooLarge { .. } | ProposeError::Encode(_))
}

/// Whether a refusal only means that somebody else was faster.
pub(crate) fn is_lost_race(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Refused(ApplyError::OutOfSequence { .. } | ApplyError::NotFound { .. }))
}
