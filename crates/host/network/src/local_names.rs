//! Keeps the names of this machine's own networks in their files.
//!
//! In: which networks have other containers than before. Out: their files of names, written before anybody is told that the
//! change is made. Names of networks across machines come from the swarm, and are not touched here. While the network is
//! held nothing is written: containers that were not adopted yet would lose their names.

use netplan::names::{LocalEndpoint, of_containers};

use crate::registry::Kind;
use crate::wanted::Wanted;
use crate::{NamesDir, names};

/// Digits of the ids of this machine's networks; the swarm's are shorter.
const ID_DIGITS: usize = 64;

/// Where names are written.
pub(crate) struct LocalNames {
    dir: NamesDir,
    /// Names of before were looked through.
    is_settled: bool,
}

impl LocalNames {
    pub(crate) fn new(dir: NamesDir) -> Self {
        Self { dir, is_settled: false }
    }

    /// Writes what has changed, the first time everything. What can't be written is tried again with the next change. Not to
    /// be called while the network is held.
    pub(crate) fn write(&mut self, wanted: &mut Wanted) {
        if !self.is_settled {
            self.is_settled = true;
            self.settle(wanted);
        }
        for id in wanted.take_renamed() {
            if let Err(error) = write_one(&self.dir, wanted, &id) {
                tracing::error!(
                    network.id = id,
                    error = &error as &dyn std::error::Error,
                    "names not written"
                );
                wanted.note_renamed(&id);
            }
        }
    }

    /// Wants the names of every network written, and forgets those of networks that are gone.
    fn settle(&self, wanted: &mut Wanted) {
        let ids: Vec<String> = wanted.networks.iter().map(|entry| entry.record.id.clone()).collect();
        ids.iter().for_each(|id| wanted.note_renamed(id));
        let is_known = |id: &str| id.len() != ID_DIGITS || wanted.networks.by_id(id).is_some();
        if let Err(error) = self.dir.retain(is_known) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "names of networks that are gone are left"
            );
        }
    }
}

fn write_one(dir: &NamesDir, wanted: &Wanted, id: &str) -> std::io::Result<()> {
    let Some(entry) = wanted.networks.by_id(id) else { return dir.remove(id) };
    if entry.is_predefined() || matches!(entry.kind, Kind::Overlay(_)) {
        return Ok(());
    }
    let containers = names::of_network(wanted, id);
    let endpoints = containers
        .iter()
        .map(|container| LocalEndpoint { names: &container.names, addresses: &container.addresses });
    dir.write(id, &of_containers(&entry.record.name, endpoints)).map(drop)
}
