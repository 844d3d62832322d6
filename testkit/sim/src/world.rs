//! The world: a store, a manager's step, agents and users, and time that only moves when it is told to.
//!
//! In: a seed. Out: a history in which every change and every quiet moment was judged by all invariants.

use control::{Dirty, Parts};
use objects::{Availability, Cluster, ClusterSpec, IdSource, Nanos, Node, NodeState, Task, Timestamp};
use store::{Change, Store, Write};

use crate::chance::{Chance, ids};
use crate::{agent, invariants, user};

/// Events with faults, per world.
const EVENTS: usize = 160;
/// Transactions in a row without an event from outside, at most. chosen: ten times what the busiest seed needs.
const MAX_STEPS: usize = 60;
/// One of so many quiet moments is looked at with the eyes of a new leader, which is slow.
const NEW_LEADER_IN: usize = 5;
/// Rounds of peace, at most. chosen: ten times what the slowest seed needs.
const MAX_ROUNDS: usize = 4000;

/// What went wrong, and how to see it again.
#[derive(Debug)]
pub struct Failure {
    /// The seed of the world.
    pub seed: u64,
    /// Number of the event.
    pub event: usize,
    /// The invariant that broke, and on what.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "seed {} broke at event {}: {}", self.seed, self.event, self.what)?;
        write!(out, "see it again with: SKEP_SEED={} cargo test -p sim", self.seed)
    }
}

impl std::error::Error for Failure {}

/// A swarm that only lives in memory.
pub struct World {
    /// Its seed.
    pub seed: u64,
    /// Its state.
    pub store: Store,
    /// Its time.
    pub now: Timestamp,
    /// How often an invariant was asked, to see that the world was alive.
    pub changes: usize,
    dirty: Dirty,
    ids: IdSource,
    user_ids: IdSource,
    chance: Chance,
    faults: bool,
    event: usize,
    wake_at: Option<Timestamp>,
}

impl World {
    /// A new swarm of one to five nodes.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            store: Store::new(),
            now: Timestamp::from_secs(1_800_000_000),
            changes: 0,
            dirty: Dirty::everything(),
            ids: ids(seed, 1),
            user_ids: ids(seed, 2),
            chance: Chance::new(seed, 3),
            faults: true,
            event: 0,
            wake_at: None,
        };
        let spec = ClusterSpec::default().with_defaults();
        let mut writes =
            vec![Write::Create(Cluster { id: world.user_ids.next(), spec, ..Cluster::default() }.into())];
        for number in 0..=world.chance.below(5) {
            let node = user::new_node(number, &mut world.user_ids, &mut world.chance);
            writes.push(Write::Create(node.into()));
        }
        world.store.apply(1, world.now, &writes).expect("an empty store refuses nothing");
        user::first_networks(&mut world.store, world.now, &mut world.user_ids);
        world
    }

    /// Users ask, tasks crash, nodes vanish and return, leaders change.
    pub fn live_with_faults(&mut self) -> Result<(), Failure> {
        for _ in 0..EVENTS {
            self.event += 1;
            self.happen()?;
            self.settle()?;
        }
        Ok(())
    }

    /// Nothing bad happens any more: the swarm must reach what was asked for, and then do nothing.
    pub fn come_to_rest(&mut self) -> Result<(), Failure> {
        self.faults = false;
        self.heal()?;
        for _ in 0..MAX_ROUNDS {
            self.event += 1;
            self.settle()?;
            if self.advance_tasks(100)? > 0 {
                self.now = self.now + Nanos::from_millis(10);
                continue;
            }
            match self.wake_at {
                Some(at) => self.now = self.now.max(at),
                None => return self.judge(invariants::at_rest(&self.store)),
            }
        }
        Err(self.failure(format!("no rest after {MAX_ROUNDS} rounds; {}", self.summary())))
    }

    /// What there is, in short lines, for people who look at a failure.
    pub fn summary(&self) -> String {
        let mut text = format!("now {}, wake_at {:?}\n", self.now, self.wake_at);
        for service in self.store.services() {
            let update = service.update_status.as_ref().map(|status| (status.state, &status.message));
            text += &format!("{} {:?} {update:?}\n", service.spec.name, service.spec.mode.as_str());
            for task in self.store.tasks_of_service(&service.id) {
                text += &format!(
                    "  {:?} {} {} desired {} v{} on {} {}\n",
                    task.slot_key(),
                    task.id,
                    task.status.state,
                    task.desired_state,
                    task.internal.spec_version,
                    task.node_id,
                    task.status.err
                );
            }
        }
        text
    }

    fn happen(&mut self) -> Result<(), Failure> {
        match self.chance.below(20) {
            0..=2 => {
                let writes = user::request(&self.store, self.now, &mut self.user_ids, &mut self.chance);
                self.commit(&writes)
            }
            3 => self.lose_or_find_node(),
            4 => self.change_leader(),
            5 | 6 => {
                self.now = self.now + self.chance.millis(20_000);
                Ok(())
            }
            7..=9 => {
                self.now = self.now + self.chance.millis(1500);
                Ok(())
            }
            _ => {
                self.now = self.now + self.chance.millis(50);
                self.advance_tasks(50).map(drop)
            }
        }
    }

    /// Steps until the manager has nothing more to write.
    fn settle(&mut self) -> Result<(), Failure> {
        for _ in 0..MAX_STEPS {
            let decision = control::step(&self.store, &mut self.dirty, self.now, &mut self.ids);
            if decision.writes.is_empty() {
                self.wake_at = decision.wake_at;
                if decision.wake_at.is_some_and(|at| at <= self.now) {
                    continue;
                }
                return self.judge(invariants::when_quiet(self));
            }
            if self.faults && self.chance.percent(10) {
                // Somebody is faster: the decision may be refused, and nothing may be lost by it.
                self.advance_tasks(30)?;
                let writes = if self.chance.percent(30) {
                    user::request(&self.store, self.now, &mut self.user_ids, &mut self.chance)
                } else {
                    Vec::new()
                };
                // A network is made and removed while nobody else decides.
                let is_alone = writes.iter().any(|write| write.target().0 == store::Kind::Network);
                self.commit(if is_alone { &[] } else { &writes })?;
            }
            self.commit_in_parts(decision.writes)?;
        }
        Err(self.failure(format!("still writing after {MAX_STEPS} steps")))
    }

    /// Commits a decision as a manager does, in entries of any size; the leader may be lost between two of them, and
    /// others write.
    fn commit_in_parts(&mut self, writes: Vec<Write>) -> Result<(), Failure> {
        let limit = if self.chance.percent(50) { 1 + self.chance.below(6) as usize } else { usize::MAX };
        let mut parts = Parts::with_limit(&self.store, writes, limit);
        while let Some(entry) = parts.next() {
            if !self.try_commit(&entry)? {
                return Ok(());
            }
            parts.committed(self.store.applied());
            if self.faults && self.chance.percent(10) {
                self.advance_tasks(30)?;
            }
            if self.faults && self.chance.percent(5) {
                return self.change_leader();
            }
        }
        Ok(())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Failure> {
        self.try_commit(writes).map(drop)
    }

    /// Applies writes; a refusal is no failure, and leaves the store as it was. Whether they were applied.
    fn try_commit(&mut self, writes: &[Write]) -> Result<bool, Failure> {
        if writes.is_empty() {
            return Ok(true);
        }
        let before = self.store.clone();
        let index = self.store.applied() + 1;
        match self.store.apply(index, self.now, writes) {
            Ok(changes) => {
                self.changes += changes.len();
                for change in &changes {
                    self.dirty.note(change);
                }
                self.judge(invariants::on_changes(&before, &self.store, &changes, self.now))?;
                Ok(true)
            }
            Err(error) => {
                let is_same =
                    before.tasks().eq(self.store.tasks()) && before.services().eq(self.store.services());
                if is_same {
                    Ok(false)
                } else {
                    Err(self.failure(format!("`{error}` left something behind")))
                }
            }
        }
    }

    /// Lets agents report the next state of some of their tasks; returns how many did.
    fn advance_tasks(&mut self, percent: u64) -> Result<usize, Failure> {
        let mut reports: Vec<Task> = Vec::new();
        for task in self.store.tasks() {
            let node = self.store.node(&task.node_id);
            let is_up = node.is_some_and(|node| node.status.state == NodeState::Ready);
            if !is_up || !self.chance.percent(percent) {
                continue;
            }
            let status = agent::next_status(task, self.now, self.faults, &mut self.chance);
            reports.extend(status.and_then(|status| task.observed(status, self.now)));
        }
        let writes: Vec<Write> = reports.into_iter().map(Write::update).collect();
        self.commit(&writes)?;
        Ok(writes.len())
    }

    fn lose_or_find_node(&mut self) -> Result<(), Failure> {
        let nodes: Vec<_> = self.store.nodes().cloned().collect();
        let Some(node) = self.chance.pick(&nodes) else { return Ok(()) };
        let mut node = Node::clone(node);
        if node.status.state == NodeState::Ready {
            let patience = Nanos::from_millis([0, 400, 60_000][self.chance.below(3) as usize]);
            node.status.state = NodeState::Down;
            node.internal.status_since = self.now;
            node.internal.tasks_move_at = self.now + patience;
        } else {
            node.status.state = NodeState::Ready;
            node.internal.tasks_move_at = Timestamp::ZERO;
        }
        let is_removed = node.status.state == NodeState::Down && self.chance.percent(10);
        let write = if is_removed { Write::remove(node) } else { Write::update(node) };
        let mut writes = vec![write];
        if is_removed {
            let node = user::new_node(self.event as u64 + 10, &mut self.user_ids, &mut self.chance);
            writes.push(Write::Create(node.into()));
        }
        self.commit(&writes)
    }

    /// A new leader knows nothing but what a snapshot holds.
    fn change_leader(&mut self) -> Result<(), Failure> {
        let image = serde_json::to_vec(&self.store).map_err(|error| self.failure(error.to_string()))?;
        let read: Store = serde_json::from_slice(&image).map_err(|error| self.failure(error.to_string()))?;
        if read != self.store {
            return Err(self.failure("a snapshot does not read back as what was written".to_owned()));
        }
        self.store = read;
        self.dirty = Dirty::everything();
        Ok(())
    }

    /// All nodes are up and take tasks, and users give up images whose tasks never last.
    fn heal(&mut self) -> Result<(), Failure> {
        self.settle()?;
        for service in self.store.services().cloned().collect::<Vec<_>>() {
            self.commit(&user::heal(&self.store, &service))?;
        }
        let nodes: Vec<_> = self.store.nodes().cloned().collect();
        let writes: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let mut node = Node::clone(&node);
                node.status.state = NodeState::Ready;
                node.spec.availability = Availability::Active;
                Write::update(node)
            })
            .collect();
        self.commit(&writes)
    }

    /// Whether a step of a new leader would write nothing, and what is kept between steps is true.
    pub fn is_settled_for_a_new_leader(&self) -> Result<(), String> {
        if !self.event.is_multiple_of(NEW_LEADER_IN) {
            return Ok(());
        }
        if !self.dirty.is_true_to(&self.store) {
            return Err("loads are not what the store adds up to".to_owned());
        }
        let mut ids = self.ids.clone();
        let decision = control::step(&self.store, &mut Dirty::everything(), self.now, &mut ids);
        let is_check = |write: &Write| matches!(write, Write::Check { .. });
        match decision.writes.iter().find(|write| !is_check(write) && !self.only_explains(write)) {
            None => Ok(()),
            Some(write) => Err(format!("a new leader would still write: {write:?}")),
        }
    }

    /// Whether a write only counts anew why a task waits: not worth a write for every change of every load.
    fn only_explains(&self, write: &Write) -> bool {
        let Write::Update { object: store::Object::Task(task), .. } = write else { return false };
        let Some(known) = self.store.task(&task.id) else { return false };
        let mut known = Task::clone(known);
        known.status.err.clone_from(&task.status.err);
        known.status.timestamp = task.status.timestamp;
        !task.status.err.is_empty() && known == **task
    }

    fn judge(&self, verdict: Result<(), String>) -> Result<(), Failure> {
        verdict.map_err(|what| self.failure(what))
    }

    fn failure(&self, what: String) -> Failure {
        Failure { seed: self.seed, event: self.event, what }
    }
}

/// Changes of tasks only, as before and after.
pub fn task_changes(changes: &[Change]) -> impl Iterator<Item = (Option<&Task>, Option<&Task>)> {
    let task = |object: &Option<store::Object>| object.as_ref().and_then(|object| object.as_task()).is_some();
    changes.iter().filter(move |change| task(&change.before) || task(&change.after)).map(|change| {
        let before = change.before.as_ref().and_then(|object| object.as_task()).map(AsRef::as_ref);
        let after = change.after.as_ref().and_then(|object| object.as_task()).map(AsRef::as_ref);
        (before, after)
    })
}
