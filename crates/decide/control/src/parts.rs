//! Splits a decision into log entries that may be committed one after another, each of them safe alone.
//!
//! In: the writes of a step, and the store they were decided on. Out: entries, in order. What belongs to one slot stays
//! together, and every entry carries the checks of what it writes: when a later one is refused, or never proposed, what
//! was committed is what a smaller decision would have been. Never proposes anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use objects::{NodeId, ServiceId, SlotKey, Task, Version};
use store::{Kind, Store, Write};

/// Writes per log entry, apart from checks. Source: moby/swarmkit, `manager/state/store/memory.go`
/// (`MaxChangesPerTransaction`).
const WRITES_PER_ENTRY: usize = 200;

/// The entries of a decision that are still to be committed.
///
/// ```text
///   while let Some(entry) = parts.next() {
///       committed at `index`  => parts.committed(index),
///       too large for the log => if !parts.halve() { give up },
///       refused               => give up: the next step decides anew,
///   }
/// ```
#[derive(Debug, Clone)]
pub struct Parts {
    units: VecDeque<Unit>,
    /// What was read of objects that the decision does not write, or writes in another entry.
    read: BTreeMap<(Kind, String), Version>,
    limit: usize,
    /// How many units the entry has that was given last.
    given: usize,
}

/// Writes that are committed together.
#[derive(Debug, Clone, Default)]
struct Unit {
    writes: Vec<Write>,
    /// Services and nodes that must still be as they were read.
    needs: BTreeSet<(Kind, String)>,
}

/// What writes have to be about to be one unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// What takes tasks from nodes: others may use the room in the same decision.
    Freed,
    Service(ServiceId),
    Slot(ServiceId, SlotKey),
    Other(usize),
}

impl Parts {
    /// Splits the writes of a decision on `store`.
    pub fn new(store: &Store, writes: Vec<Write>) -> Self {
        Self::with_limit(store, writes, WRITES_PER_ENTRY)
    }

    /// As [`Parts::new`], with another number of writes per entry.
    pub fn with_limit(store: &Store, writes: Vec<Write>, limit: usize) -> Self {
        let mut read = BTreeMap::new();
        let mut units: Vec<Unit> = Vec::new();
        let mut places: BTreeMap<Key, usize> = BTreeMap::new();
        let keys: Vec<Key> =
            writes.iter().enumerate().map(|(position, write)| key(store, write, position)).collect();
        let freed = slots_that_free(store, &writes, &keys);
        for (write, key) in writes.into_iter().zip(keys) {
            if let Write::Check { kind, id, read_version } = write {
                read.insert((kind, id), read_version);
                continue;
            }
            let key = if freed.contains(&key) { Key::Freed } else { key };
            let place = *places.entry(key).or_insert_with(|| {
                units.push(Unit::default());
                units.len() - 1
            });
            units[place].add(write);
        }
        // What frees room goes before what uses it, and a service before its tasks.
        let order = |key: &Key| match key {
            Key::Service(_) => 0,
            Key::Freed => 1,
            Key::Slot(..) | Key::Other(_) => 2,
        };
        let mut places: Vec<_> = places.into_iter().map(|(key, place)| (order(&key), place)).collect();
        places.sort_unstable();
        let units = places.into_iter().map(|(_, place)| std::mem::take(&mut units[place])).collect();
        Self { units, read, limit: limit.max(1), given: 0 }
    }

    /// The entry to commit next, the same one until [`Parts::committed`] is told; `None` when all are.
    #[allow(clippy::should_implement_trait, reason = "an iterator would not be told what became of an item")]
    pub fn next(&mut self) -> Option<Vec<Write>> {
        let mut size = 0;
        let fits = |unit: &&Unit| {
            size += unit.writes.len();
            size <= self.limit
        };
        self.given = self.units.iter().take_while(fits).count().max(1).min(self.units.len());
        let units = || self.units.iter().take(self.given);
        let written: BTreeSet<(Kind, &str)> =
            units().flat_map(|unit| unit.writes.iter().map(Write::target)).collect();
        let needs: BTreeSet<_> = units().flat_map(|unit| &unit.needs).collect();
        let checks =
            needs.into_iter().filter(|(kind, id)| !written.contains(&(*kind, id))).filter_map(|need| {
                let read_version = *self.read.get(need)?;
                Some(Write::Check { kind: need.0, id: need.1.clone(), read_version })
            });
        let entry: Vec<Write> = checks.chain(units().flat_map(|unit| unit.writes.iter().cloned())).collect();
        (!entry.is_empty()).then_some(entry)
    }

    /// The entry that was given last is committed at `index` of the log.
    pub fn committed(&mut self, index: u64) {
        for unit in self.units.drain(..self.given) {
            for write in &unit.writes {
                let (kind, id) = write.target();
                // Only services and nodes are needed by what other entries write.
                if matches!(kind, Kind::Service | Kind::Node) {
                    self.read.insert((kind, id.to_owned()), Version { index });
                }
            }
        }
        self.given = 0;
    }

    /// The entry that was given last is too large: makes the next one half as large. False when it cannot be smaller.
    pub fn halve(&mut self) -> bool {
        let size: usize = self.units.iter().take(self.given).map(|unit| unit.writes.len()).sum();
        self.limit = (size / 2).max(1);
        self.given > 1
    }
}

impl Unit {
    fn add(&mut self, write: Write) {
        if let Some(task) = written_task(&write) {
            self.needs.insert((Kind::Service, task.service_id.to_string()));
            if !task.node_id.is_empty() {
                self.needs.insert((Kind::Node, task.node_id.to_string()));
            }
        }
        self.writes.push(write);
    }
}

/// What a write belongs to.
fn key(store: &Store, write: &Write, position: usize) -> Key {
    if let Some(task) = written_task(write).or_else(|| known_task(store, write)) {
        return Key::Slot(task.service_id.clone(), task.slot_key());
    }
    match write.target() {
        (Kind::Service, id) => Key::Service(id.into()),
        _ => Key::Other(position),
    }
}

/// The slots whose writes make room on a node.
fn slots_that_free(store: &Store, writes: &[Write], keys: &[Key]) -> BTreeSet<Key> {
    let node = |task: &Task| task.is_active().then(|| task.node_id.clone());
    let taken: BTreeSet<NodeId> = writes
        .iter()
        .filter(|write| known_task(store, write).is_none_or(|task| !task.is_active()))
        .filter_map(|write| written_task(write).and_then(node))
        .collect();
    let is_freed = |write: &Write| {
        let is_active = written_task(write).is_some_and(Task::is_active);
        known_task(store, write).and_then(node).is_some_and(|node| !is_active && taken.contains(&node))
    };
    writes.iter().zip(keys).filter(|(write, _)| is_freed(write)).map(|(_, key)| key.clone()).collect()
}

fn written_task(write: &Write) -> Option<&Task> {
    match write {
        Write::Create(object) | Write::Update { object, .. } => object.as_task().map(AsRef::as_ref),
        Write::Remove { .. } | Write::Check { .. } => None,
    }
}

fn known_task<'a>(store: &'a Store, write: &Write) -> Option<&'a Task> {
    let (Kind::Task, id) = write.target() else { return None };
    store.task(&id.into()).map(AsRef::as_ref)
}
