//! A disk in memory that loses, tears or keeps what was not synced when its machine dies.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raft::{Disk, DiskFile, Open};

#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Default)]
struct DiskState {
    files: BTreeMap<String, Arc<Mutex<FileState>>>,
    /// Counts lives of the machine: files that were opened in another life refuse everything.
    life: u64,
    locked: BTreeMap<String, u64>,
    full: bool,
    /// Writes until the machine loses its power.
    left: Option<u64>,
    delay: Duration,
    syncs: u64,
}

#[derive(Debug, Default)]
struct FileState {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>, keep: usize) {
        match self {
            Self::Write(offset, bytes) => {
                let (offset, bytes) = (*offset as usize, &bytes[..bytes.len().min(keep)]);
                if to.len() < offset + bytes.len() {
                    to.resize(offset + bytes.len(), 0);
                }
                to[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(bytes) => to.resize(*bytes as usize, 0),
        }
    }
}

/// One life's view of the disk.
struct Mounted {
    disk: SimDisk,
    life: u64,
}

struct SimFile {
    disk: SimDisk,
    life: u64,
    state: Arc<Mutex<FileState>>,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimFile")
    }
}

impl SimDisk {
    /// The disk as the machine's next life sees it.
    pub fn mount(&self) -> Arc<dyn Disk> {
        let life = self.state.lock().unwrap().life;
        Arc::new(Mounted { disk: self.clone(), life })
    }

    /// The machine dies: each unsynced write is kept, torn or lost, as `random` says.
    pub fn crash(&self, mut random: impl FnMut() -> u64) {
        let mut state = self.state.lock().unwrap();
        state.life += 1;
        state.left = None;
        for file in state.files.values() {
            let mut file = file.lock().unwrap();
            let unsynced = std::mem::take(&mut file.unsynced);
            for change in unsynced {
                match random() % 3 {
                    0 => {}
                    1 => change.apply(&mut file.durable, usize::MAX),
                    _ => change.apply(&mut file.durable, (random() % 4096) as usize),
                }
            }
            file.now = file.durable.clone();
        }
    }

    pub fn set_full(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    /// The machine loses its power after that many writes: until it is killed, nothing reaches the disk any more.
    pub fn fail_after(&self, writes: u64) {
        self.state.lock().unwrap().left = Some(writes);
    }

    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// How often anything was made durable.
    pub fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }

    /// Everything that is on it.
    pub fn bytes(&self) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        state.files.values().flat_map(|file| file.lock().unwrap().now.clone()).collect()
    }

    fn check(&self, life: u64, writes: bool) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.life != life {
            return Err(io::Error::other("the machine is dead"));
        }
        if writes && let Some(left) = &mut state.left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        }
        if writes && state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for Mounted {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.check(self.life, false)?;
        let mut state = self.disk.state.lock().unwrap();
        if how == Open::Existing && !state.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if how == Open::Empty {
            state.files.insert(name.to_owned(), Arc::default());
        }
        if how == Open::Locked {
            let _ = state.locked.insert(name.to_owned(), self.life);
        }
        let file = Arc::clone(state.files.entry(name.to_owned()).or_default());
        Ok(Arc::new(SimFile { disk: self.disk.clone(), life: self.life, state: file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.check(self.life, false)?;
        let mut state = self.disk.state.lock().unwrap();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.check(self.life, false)?;
        self.disk.state.lock().unwrap().files.remove(name);
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.disk.state.lock().unwrap().files.contains_key(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn delay(&self) -> Duration {
        self.disk.state.lock().unwrap().delay
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.check(self.life, false)?;
        Ok(self.state.lock().unwrap().now.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.check(self.life, false)?;
        let state = self.state.lock().unwrap();
        let offset = offset as usize;
        let part = state.now.get(offset..offset + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.check(self.life, true)?;
        self.change(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.check(self.life, true)?;
        self.change(Change::Length(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.check(self.life, true)?;
        self.disk.state.lock().unwrap().syncs += 1;
        let mut state = self.state.lock().unwrap();
        let unsynced = std::mem::take(&mut state.unsynced);
        for change in unsynced {
            change.apply(&mut state.durable, usize::MAX);
        }
        Ok(())
    }
}

impl SimFile {
    fn change(&self, change: Change) {
        let mut state = self.state.lock().unwrap();
        change.apply(&mut state.now, usize::MAX);
        state.unsynced.push(change);
    }
}
