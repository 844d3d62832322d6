//! The names that are known now, from the files that say so.
//!
//! In: `resolver.json` and the tables it names. Out: views of the tables. A file that was replaced is seen by its identity,
//! which is looked at before each round of answers: names follow at once, and nothing has to be told to a shim. A file that
//! vanished or can't be read leaves what was known before.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use names::View;
use resolve::Unknown;

use super::map::Map;
use crate::ResolverConfig;
use crate::resolver::Upstream;

/// Longest table. Chosen: half a million names; more is a mistake, not a network.
const TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What makes one file another one, under the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    seen: Option<Identity>,
    map: Option<Map>,
}

/// Everything that was read, with the marks by which it is known to be current.
#[derive(Debug)]
pub(super) struct Tables {
    path: PathBuf,
    seen: Option<Identity>,
    config: Option<ResolverConfig>,
    tables: Vec<Table>,
}

impl Tables {
    /// Nothing was read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, config: None, tables: Vec::new() }
    }

    /// Reads what was replaced since the last time; whether the upstream resolvers may be others now.
    pub(super) fn refresh(&mut self) -> bool {
        let is_new = self.refresh_config();
        for table in &mut self.tables {
            refresh_table(table);
        }
        is_new
    }

    fn refresh_config(&mut self) -> bool {
        let Ok(metadata) = fs::metadata(&self.path) else { return false };
        let identity = Identity::of(&metadata);
        if self.seen == Some(identity) {
            return false;
        }
        let Ok(text) = fs::read(&self.path) else { return false };
        // If it is replaced just now, it has another identity again the next time.
        self.seen = Some(identity);
        let Ok(config) = serde_json::from_slice::<ResolverConfig>(&text) else { return false };
        let mut before = std::mem::take(&mut self.tables);
        for network in &config.networks {
            let table = match before.iter().position(|table| table.path == network.path) {
                Some(place) => before.swap_remove(place),
                None => Table { path: network.path.clone(), seen: None, map: None },
            };
            self.tables.push(table);
        }
        self.config = Some(config);
        true
    }

    /// The tables, in the order of the container's networks.
    pub(super) fn views(&self) -> Vec<View<'_>> {
        let maps = self.tables.iter().filter_map(|table| table.map.as_ref());
        maps.filter_map(|map| View::read(map.bytes()).ok()).collect()
    }

    /// Who knows all other names.
    pub(super) fn upstreams(&self) -> &[Upstream] {
        self.config.as_ref().map_or(&[], |config| &config.upstreams)
    }

    /// What becomes of a name that no table has.
    pub(super) fn unknown(&self) -> Unknown {
        match &self.config {
            None => Unknown::Fail,
            Some(config) if config.internal || config.upstreams.is_empty() => Unknown::NoSuchName,
            Some(_) => Unknown::Forward,
        }
    }
}

fn refresh_table(table: &mut Table) {
    let Ok(metadata) = fs::metadata(&table.path) else { return };
    if table.seen == Some(Identity::of(&metadata)) {
        return;
    }
    let Ok(file) = File::open(&table.path) else { return };
    // Of what was opened, which may be newer than what was looked at.
    let Ok(metadata) = file.metadata() else { return };
    table.seen = Some(Identity::of(&metadata));
    if metadata.len() > TABLE_BYTES_MAX {
        return;
    }
    let Ok(map) = Map::of(&file, metadata.len()) else { return };
    if View::read(map.bytes()).is_ok() {
        table.map = Some(map);
    }
}
