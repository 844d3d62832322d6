//! The disks of machines: what was not synced may be lost, torn or kept when the plug is pulled; they fill up and are slow.
//!
//! In: reads and writes of [`raft`]. Out: what a disk would say. A write that was synced is never lost.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raft::{Disk, DiskFile, Open};

use crate::chance::Chance;
use crate::cluster::time::Time;

/// What the page cache holds of one file, and what the platter does.
#[derive(Debug, Default, Clone)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    /// Where it is; a change of the length comes before all else.
    fn offset(&self) -> Option<u64> {
        match self {
            Self::Length(_) => None,
            Self::Write(offset, _) => Some(*offset),
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => to.resize(*bytes as usize, 0),
            Self::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset as usize..end].copy_from_slice(bytes);
            }
        }
    }

    /// What the platter may hold of it when the plug is pulled: nothing, a part, or all.
    fn survive(&self, to: &mut Vec<u8>, chance: &mut Chance) {
        match (chance.below(3), self) {
            (0, _) => {}
            (1, Self::Write(offset, bytes)) => {
                // Disks write whole sectors. Source: 512 bytes is the smallest that is sold.
                let sectors = chance.below(bytes.len() as u64 / 512 + 1) as usize;
                Self::Write(*offset, bytes[..sectors * 512].to_vec()).apply(to);
            }
            _ => self.apply(to),
        }
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    is_full: bool,
    delay: Duration,
    /// Counts pulled plugs: files opened before have nothing to say any more.
    boots: u64,
}

/// The disk of one machine. Cheap to clone.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the world")
}

impl SimDisk {
    /// Pulls the plug: what was not synced survives as chance has it.
    pub fn crash(&self, time: &Time) {
        let mut state = lock(&self.state);
        state.boots += 1;
        let files: BTreeMap<_, _> = state
            .files
            .iter()
            .map(|(name, content)| {
                let content = lock(content);
                let mut durable = content.durable.clone();
                // The order in which a database flushes its pages may be of its own chance.
                let mut unsynced: Vec<&Change> = content.unsynced.iter().collect();
                unsynced.sort_by_key(|change| change.offset());
                time.chance(|chance| unsynced.iter().for_each(|change| change.survive(&mut durable, chance)));
                let kept = Content { seen: durable.clone(), durable, unsynced: Vec::new() };
                (name.clone(), Arc::new(Mutex::new(kept)))
            })
            .collect();
        state.files = files;
    }

    /// Takes no more bytes, or does again.
    pub fn set_full(&self, is_full: bool) {
        lock(&self.state).is_full = is_full;
    }

    /// What a commit takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Throws everything away: a new machine.
    pub fn wipe(&self) {
        lock(&self.state).files.clear();
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        let boot = state.boots;
        let content = match state.files.get(name) {
            Some(content) => Arc::clone(content),
            None if how == Open::Existing => return Err(io::ErrorKind::NotFound.into()),
            None => Arc::clone(state.files.entry(name.to_owned()).or_default()),
        };
        if how == Open::Empty {
            let mut content = lock(&content);
            content.seen.clear();
            content.unsynced.push(Change::Length(0));
        }
        Ok(Arc::new(SimFile { content, disk: self.clone(), boot }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.state).files.remove(name);
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(lock(&self.state).files.contains_key(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }

    fn delay(&self) -> Duration {
        lock(&self.state).delay
    }
}

struct SimFile {
    content: Arc<Mutex<Content>>,
    disk: SimDisk,
    boot: u64,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFile").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl SimFile {
    /// Whether more bytes fit; a process of before the plug was pulled reaches no disk.
    fn take(&self, grows: bool) -> io::Result<()> {
        let state = lock(&self.disk.state);
        if state.boots != self.boot {
            return Err(io::Error::other("the machine is off"));
        }
        if state.is_full && grows { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn change(&self, change: Change, grows: bool) -> io::Result<()> {
        self.take(grows)?;
        let mut content = lock(&self.content);
        change.apply(&mut content.seen);
        content.unsynced.push(change);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let content = lock(&self.content);
        let from = offset as usize;
        let part = content.seen.get(from..from + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A copy-on-write file system needs room for everything: the harsher one.
        self.change(Change::Write(offset, bytes.to_vec()), true)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let grows = bytes > self.len()?;
        self.change(Change::Length(bytes), grows)
    }

    fn sync(&self) -> io::Result<()> {
        self.take(false)?;
        let mut content = lock(&self.content);
        let content = &mut *content;
        for change in content.unsynced.drain(..) {
            change.apply(&mut content.durable);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_be_torn() {
        let mut torn = 0;
        for seed in 0..50 {
            let (time, disk) = (Time::new(seed), SimDisk::default());
            let file = disk.open("log", Open::OrCreate).expect("it is made");
            file.write_at(0, &[1; 2048]).expect("there is room");
            file.sync().expect("it syncs");
            file.write_at(0, &[2; 2048]).expect("there is room");
            disk.crash(&time);
            assert!(file.sync().is_err(), "a process of before reaches no disk");
            let file = disk.open("log", Open::Existing).expect("it is there");
            let mut read = [0; 2048];
            file.read_at(0, &mut read).expect("it was that long");
            assert!(read.iter().all(|byte| *byte == 1 || *byte == 2));
            torn += usize::from(read[0] != read[2047]);
        }
        assert!(torn > 0, "some writes are torn");
    }

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room() {
        let disk = SimDisk::default();
        let file = disk.open("log", Open::OrCreate).expect("it is made");
        disk.set_full(true);
        let error = file.write_at(0, &[1]).expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.set_full(false);
        file.write_at(0, &[1]).expect("there is room");
    }
}
