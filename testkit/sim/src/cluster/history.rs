//! What everybody saw: the one history that all managers must agree on, who led when, and what users were promised.
//!
//! In: commits as each manager applies them, leaderships, acknowledgements. Out: the first invariant that broke.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use objects::{NodeId, TaskId};
use store::{Change, Object, Store, Write};

use crate::cluster::invariants::{
    acknowledged_is_kept, containers_run_on, history_is_one, index_grows, no_more_than_wanted,
    reads_are_fresh, term_has_one_leader,
};
use crate::cluster::time::Machine;

/// The history of a world.
#[derive(Default)]
pub struct History {
    /// What was committed, by index.
    commits: BTreeMap<u64, Vec<Change>>,
    /// The store that all commits so far make.
    pub store: Store,
    /// The log that the history is of; zero before anything is committed.
    epoch: u64,
    /// Logs that a forced new cluster left behind.
    former: BTreeSet<u64>,
    /// Entries up to here may be news to the history: nobody saw them applied, or who did was left behind.
    floor: u64,
    /// Who led, by epoch and term.
    leaders: BTreeMap<(u64, u64), Machine>,
    acknowledged: BTreeSet<u64>,
    /// The first thing that went wrong.
    pub failure: Option<String>,
}

impl History {
    /// A manager applied a commit of a log, after the entry `last`.
    pub fn applied(&mut self, machine: Machine, epoch: u64, last: Option<u64>, commit: &raft::Commit) {
        if self.former.contains(&epoch) {
            self.fail(format!(
                "manager {machine} committed entry {} of a log that was left behind",
                commit.index
            ));
            return;
        }
        self.epoch = epoch;
        let judged = self.append(commit).and_then(|()| index_grows::check(last, commit.index, &self.store));
        self.judge(judged.map_err(|what| format!("manager {machine}: {what}")));
    }

    fn append(&mut self, commit: &raft::Commit) -> Result<(), String> {
        let (index, changes) = (commit.index, &commit.changes);
        let is_older = index <= self.floor;
        if !is_older || self.commits.contains_key(&index) {
            history_is_one::check(&self.commits, index, changes)?;
        }
        if is_older || self.commits.contains_key(&index) {
            return Ok(());
        }
        let before = self.store.clone();
        let writes: Vec<Write> = changes.iter().filter_map(write).collect();
        let applied = self.store.apply(index, commit.now, &writes);
        applied.map_err(|error| format!("entry {index} does not follow from those before: {error}"))?;
        self.commits.insert(index, changes.clone());
        crate::invariants::on_changes(&before, &self.store, changes, commit.now)
            .and_then(|()| no_more_than_wanted::check(&before, &self.store, changes))
            .map_err(|broken| format!("entry {index}: {broken}"))
    }

    /// A manager opened its log, which goes on from `store`. One that is alone commits what is left in its log while nobody
    /// can watch it.
    pub fn opened(&mut self, epoch: u64, store: &Store) {
        if self.former.contains(&epoch) || store.applied() <= self.store.applied() {
            return;
        }
        let kept = self.check_promises();
        self.judge(kept);
        self.store = store.clone();
        self.floor = store.applied();
    }

    /// A manager made itself the only one: what it has is the history, and another log goes on with it.
    pub fn begin_again(&mut self, epoch: u64, store: Store, applied: u64) {
        self.former.insert(self.epoch);
        self.epoch = epoch;
        self.commits.split_off(&(applied + 1));
        self.acknowledged.split_off(&(applied + 1));
        self.store = store;
        self.floor = applied;
    }

    /// A manager believes that it leads.
    pub fn leads(&mut self, machine: Machine, epoch: u64, term: u64) {
        let judged = if self.former.contains(&epoch) {
            Err(format!("manager {machine} leads a log that was left behind"))
        } else {
            term_has_one_leader::check(&mut self.leaders, machine, epoch, term)
        };
        self.judge(judged);
    }

    /// A user was told that this entry of a log is committed.
    pub fn acknowledged(&mut self, epoch: u64, index: u64) {
        if !self.former.contains(&epoch) {
            self.acknowledged.insert(index);
        }
    }

    /// What whoever reads now has a right to see: the log, and the newest entry that anybody was told of.
    #[must_use]
    pub fn promised(&self) -> (u64, Option<u64>) {
        (self.epoch, self.acknowledged.last().copied())
    }

    /// A user has read a log as far as `index`, and had a right to `promised` when it asked.
    pub fn read(&mut self, promised: (u64, Option<u64>), epoch: u64, index: u64) {
        // What a forced new cluster lost is nobody's right any more.
        if epoch == self.epoch && epoch == promised.0 {
            self.judge(reads_are_fresh::check(promised.1, index));
        }
    }

    /// A node stopped a container that ran.
    pub fn container_stopped(&mut self, node: &NodeId, task: &TaskId) {
        let judged = containers_run_on::check(&self.store, node, task);
        self.judge(judged);
    }

    /// How much happened: commits, acknowledgements, leaders.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        (self.commits.len(), self.acknowledged.len(), self.leaders.len())
    }

    /// A number that differs when any commit does.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest(DefaultHasher::new());
        write!(digest, "{:?}", self.commits).expect("a hash takes everything");
        digest.0.finish()
    }

    /// Whether what users were promised is there, once every manager has everything.
    pub fn check_promises(&self) -> Result<(), String> {
        acknowledged_is_kept::check(self.acknowledged.range(self.floor + 1..), &self.commits)
    }

    fn judge(&mut self, judged: Result<(), String>) {
        if let Err(what) = judged {
            self.fail(what);
        }
    }

    /// Keeps the first failure.
    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }
}

/// Hashes what is printed.
struct Digest(DefaultHasher);

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The write that makes a change again.
fn write(change: &Change) -> Option<Write> {
    let version = change.before.as_ref().map(|before: &Object| before.meta().version);
    match (version, &change.after) {
        (None, after) => after.clone().map(Write::Create),
        (Some(read_version), Some(after)) => Some(Write::Update { object: after.clone(), read_version }),
        (Some(read_version), None) => {
            Some(Write::Remove { kind: change.kind, id: change.id.clone(), read_version })
        }
    }
}
