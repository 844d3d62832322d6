//! How operations change the store: read, decide, commit, one at a time.
//!
//! In: a function from the store to writes. Out: the commit, or the function's error. A decision that lost a race is
//! made again on the new state, a limited number of times.

use objects::IdSource;
use raft::{Applied, ProposeError};
use store::{ApplyError, Store, Write};
use tokio::sync::SemaphorePermit;

use crate::clock;
use crate::error::ManagerError;
use crate::manager::Manager;

/// Writes per log entry when a decision is larger. Source: swarmkit, `manager/state/store/memory.go` (`MaxChangesPerTransaction`).
const WRITES_PER_ENTRY: usize = 200;

/// How often a decision is made again. chosen: with one manager a race needs another writer between two lines; more than
/// a few in a row is a bug to report.
const ATTEMPTS: usize = 5;

impl Manager {
    /// Waits for the turn to decide.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, ManagerError> {
        self.inner.turn.acquire().await.map_err(|_| ManagerError::Stopping)
    }

    /// Commits `writes` as they are.
    pub(crate) async fn propose(&self, writes: Vec<Write>) -> Result<Applied, ManagerError> {
        Ok(self.inner.consensus.propose(clock::now(), writes).await?)
    }

    /// Decides on the store as it is and commits that; gives what the decision gave besides its writes.
    ///
    /// Nothing is committed when there is nothing to write.
    pub(crate) async fn change<T>(
        &self,
        decide: impl Fn(&Store, &mut IdSource) -> Result<(T, Vec<Write>), ManagerError>,
    ) -> Result<T, ManagerError> {
        let _turn = self.turn().await?;
        for _ in 1..ATTEMPTS {
            match self.try_change(&decide).await {
                Err(ManagerError::OutOfSequence) => {}
                result => return result,
            }
        }
        self.try_change(&decide).await
    }

    async fn try_change<T>(
        &self,
        decide: &impl Fn(&Store, &mut IdSource) -> Result<(T, Vec<Write>), ManagerError>,
    ) -> Result<T, ManagerError> {
        let (result, writes) = {
            let store = self.inner.consensus.read();
            let mut ids = self.inner.ids.lock().expect("drawing ids does not panic");
            decide(&store, &mut ids)?
        };
        if !writes.is_empty() {
            self.propose(writes).await?;
        }
        Ok(result)
    }

    /// Commits the writes of one decision, in several entries when one would be too large.
    ///
    /// Stops at the first entry that is refused: what follows was decided on what did not happen.
    pub(crate) async fn propose_split(&self, writes: Vec<Write>) -> Result<(), ProposeError> {
        let mut rest: Vec<Vec<Write>> =
            writes.chunks(WRITES_PER_ENTRY).rev().map(<[Write]>::to_vec).collect();
        while let Some(mut entry) = rest.pop() {
            let halves = entry.len() / 2;
            match self.inner.consensus.propose(clock::now(), entry.clone()).await {
                Ok(_) => {}
                Err(ProposeError::TooLarge { .. }) if halves > 0 => {
                    rest.push(entry.split_off(halves));
                    rest.push(entry);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether a refusal only means that somebody else was faster.
pub(crate) fn is_lost_race(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Refused(ApplyError::OutOfSequence { .. } | ApplyError::NotFound { .. }))
}
