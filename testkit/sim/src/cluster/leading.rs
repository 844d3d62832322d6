//! What a manager of the world does while it leads: decides, judges nodes, keeps roles. The decisions are production's.
//!
//! In: leadership, the store, raft's view. Out: commits and changes of raft's members. All loops end with the leadership.

use std::sync::Arc;
use std::time::Duration;

use control::{Dirty, Parts};
use membership::{RoleStep, reachability, roles};
use objects::{Cluster, Node, NodeId, NodeRole, Timestamp};
use raft::{FeedItem, Member, ProposeError};
use store::Write;

use crate::cluster::manager::{Manager, lock};

/// Between two looks at leases and roles. chosen: production waits for a reason, or 5 s; a poll is one task less.
const LOOK: Duration = Duration::from_millis(200);

/// Wait after what failed. Source: the manager's.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

impl Manager {
    /// As long as this manager lives: leads whenever it is elected.
    pub(crate) async fn lead(self: &Arc<Self>) {
        let mut leadership = self.log.leadership();
        loop {
            if !leadership.is_leader() {
                if !leadership.changed().await {
                    return;
                }
                continue;
            }
            let term = leadership.term();
            self.shared.history().leads(self.machine, self.log.epoch(), term);
            let lost = async {
                while leadership.is_leader() && leadership.term() == term && leadership.changed().await {}
            };
            let work = async {
                self.settle_what_is_under_way().await;
                self.complete().await;
                tokio::join!(self.decide(), self.judge(), self.keep_roles(), self.keep_reachability());
            };
            tokio::select! {
                biased;
                () = lost => {}
                () = work => {}
            }
        }
    }

    /// The control loop.
    async fn decide(&self) {
        let ((), mut feed) = self.log.follow(|_| ());
        let mut dirty = Dirty::everything();
        let note = |dirty: &mut Dirty, item| match item {
            FeedItem::Commit(commit) => commit.changes.iter().for_each(|change| dirty.note(change)),
            FeedItem::Resync => *dirty = Dirty::everything(),
        };
        loop {
            let now = self.shared.wall(self.machine);
            let (wake_at, parts) = {
                let store = self.log.read();
                while let Some(item) = feed.try_next() {
                    note(&mut dirty, item);
                }
                let decision = control::step(&store, &mut dirty, now, &mut lock(&self.ids));
                let parts = (!decision.writes.is_empty()).then(|| self.split(&store, decision.writes));
                (decision.wake_at, parts)
            };
            let Some(parts) = parts else {
                let wait = wake_at.map_or(Duration::from_secs(3600), |at| at.since(now).to_std());
                tokio::select! {
                    biased;
                    item = feed.next() => match item {
                        Some(item) => note(&mut dirty, item),
                        None => return,
                    },
                    () = self.shared.time.sleep(wait) => {}
                }
                continue;
            };
            match self.propose(now, parts).await {
                Ok(()) | Err(ProposeError::Refused(_)) => {}
                Err(_) => {
                    dirty = Dirty::everything();
                    self.settle_what_is_under_way().await;
                }
            }
        }
    }

    /// What this leader proposed without an answer may be in the log and be committed yet: once an empty entry after it is
    /// applied, the store has it or it never will be.
    async fn settle_what_is_under_way(&self) {
        while self.log.propose(self.shared.wall(self.machine), Vec::new()).await.is_err() {
            self.shared.time.sleep(AFTER_FAILURE).await;
        }
    }

    /// Splits a decision, half of them into entries far smaller than production's: leaders are lost between them.
    fn split(&self, store: &store::Store, writes: Vec<Write>) -> Parts {
        match self.shared.time.chance(|chance| chance.below(12)) {
            0..6 => Parts::new(store, writes),
            limit => Parts::with_limit(store, writes, limit as usize - 5),
        }
    }

    async fn propose(&self, now: Timestamp, mut parts: Parts) -> Result<(), ProposeError> {
        while let Some(entry) = parts.next() {
            match self.log.propose(now, entry).await {
                Ok(applied) => parts.committed(applied.index),
                Err(ProposeError::TooLarge { .. }) if parts.halve() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn judge(&self) {
        lock(&self.leases).lead(&self.log.read(), self.shared.moment());
        loop {
            let now = self.shared.wall(self.machine);
            let writes: Vec<Write> = {
                let store = self.log.read();
                let judged = lock(&self.leases).judge(&store, self.shared.moment(), now);
                judged.iter().filter_map(|judgement| judgement.write(&store, now)).collect()
            };
            if !writes.is_empty() {
                // Refused or not: the next look tells.
                drop(self.log.propose(now, writes).await);
            }
            self.shared.time.sleep(LOOK).await;
        }
    }

    async fn keep_reachability(&self) {
        loop {
            {
                let _turn = self.members_turn.lock().await;
                // Refused or not: the next look tells.
                let _ = self.commit(|store| reachability::writes(store, &self.view())).await;
            }
            self.shared.time.sleep(LOOK).await;
        }
    }

    async fn keep_roles(&self) {
        loop {
            let steps = roles::reconcile(&self.log.read(), &self.view());
            if let Some(step) = steps.into_iter().next() {
                let now = self.shared.wall(self.machine);
                // Done or not: the next look tells.
                match step {
                    RoleStep::Write(writes) => drop(self.log.propose(now, writes).await),
                    RoleStep::Promote { raft_id } => drop(self.log.promote(raft_id).await),
                    RoleStep::Remove { raft_id, .. } => drop(self.log.remove(raft_id).await),
                    RoleStep::Transfer { to } => drop(self.log.transfer(Some(to)).await),
                    RoleStep::Wait { .. } => {}
                }
            }
            self.shared.time.sleep(LOOK).await;
        }
    }

    /// Writes down which log the swarm goes on with; in one that a forced new cluster began, this node manages and no
    /// other.
    async fn complete(&self) {
        let epoch = self.log.epoch();
        loop {
            let writes: Vec<Write> = {
                let store = self.log.read();
                let known = store.cluster().filter(|cluster| cluster.internal.epoch != epoch);
                let Some(known) = known else { return };
                let mut next = Cluster::clone(known);
                next.internal.epoch = epoch;
                roles::alone(&store, &self.shared.nodes[self.machine]).chain([Write::update(next)]).collect()
            };
            if self.log.propose(self.shared.wall(self.machine), writes).await.is_ok() {
                return;
            }
            self.shared.time.sleep(AFTER_FAILURE).await;
        }
    }

    /// At the leader: takes a manager with a log of that epoch into consensus, as production does. Answered once it has a
    /// vote.
    pub(crate) async fn take_in(self: Arc<Self>, node: NodeId, member: Member, epoch: u64) -> Option<()> {
        self.log.read_barrier().await.ok()?;
        if epoch != self.log.epoch() {
            // Its agent hears of the other log, and begins anew.
            return None;
        }
        {
            let _turn = self.members_turn.lock().await;
            let known = self.log.read().node(&node).cloned()?;
            if known.spec.role != NodeRole::Manager {
                return None;
            }
            let view = self.view();
            if let Some(former) = view.of_node(&node).filter(|peer| peer.raft_id != member.raft_id) {
                if !view.can_lose(former.raft_id) {
                    return None;
                }
                self.log.remove(former.raft_id).await.ok()?;
            }
            if known.internal.raft_id != member.raft_id {
                // The store knows whose number it is before raft has it: a member of nobody is removed.
                let mut next = Node::clone(&known);
                next.internal.raft_id = member.raft_id;
                self.commit(|_| vec![Write::update(next)]).await?;
            }
            self.log.add_learner(member.clone()).await.ok()?;
        }
        self.log.promote(member.raft_id).await.ok()
    }
}
