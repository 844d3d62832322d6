//! A manager that leaves the swarm: what it is warned of, and its way out of consensus.
//!
//! In: this manager's view. Out: the warning, or a swarm without it. Whether it leaves is its user's.

use membership::{LeaveWarning, Leaver};
use wire::forward::Operation;
use wire::session::ManagerPeer;

use crate::error::ManagerError;
use crate::manager::Manager;

impl Manager {
    /// Whether this manager's node may leave without force; the warning is Docker's text.
    pub fn may_leave(&self) -> Result<(), LeaveWarning> {
        let store = self.inner.consensus.read();
        let is_member = self.inner.consensus.members().borrow().members.contains_key(&self.inner.raft_id);
        let leaver =
            if is_member { Leaver::manager_of(&store, &self.inner.node) } else { Leaver::InactiveManager };
        leaver.may_leave()
    }

    /// Takes this manager out of consensus, handing leadership over when it leads. With `force` also when the managers
    /// that are left have no quorum. The last manager has nobody to leave to: nothing happens.
    pub async fn leave_raft(&self, force: bool) -> Result<(), ManagerError> {
        if self.inner.consensus.members().borrow().members.len() <= 1 {
            return Ok(());
        }
        self.perform(Operation::LeaveRaft { node: self.inner.node.clone(), force }).await.map(drop)
    }

    /// The managers that a node may turn to, this one included.
    #[must_use]
    pub fn managers(&self) -> Vec<ManagerPeer> {
        dispatch::managers(&self.inner.consensus.read())
    }
}
