//! The names of one network, and how they become a table.
//!
//! In: names with addresses, in any order. Out: bytes; equal rows give equal bytes. Never fails: a name that nobody could
//! ask for is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::layout::{self, FORMAT, HEADER_BYTES, MAGIC, NAME_BYTES_MAX};

/// Names and addresses of one network. Upper and lower case are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    network: String,
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
}

impl Rows {
    /// No names yet, in the network of this name.
    pub fn new(network: impl Into<String>) -> Self {
        Self { network: network.into(), ..Self::default() }
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Adds an address to a name. A name that several have stands for all their addresses.
    pub fn add(&mut self, name: &str, address: IpAddr) {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !name.is_empty() && name.len() <= NAME_BYTES_MAX {
            self.names.entry(name.to_ascii_lowercase()).or_default().insert(address.to_canonical());
        }
    }

    /// Says whose address this is; the first to say so is heard.
    pub fn add_reverse(&mut self, address: IpAddr, name: &str) {
        if !name.is_empty() && name.len() <= NAME_BYTES_MAX {
            self.reverse.entry(address.to_canonical()).or_insert_with(|| name.to_owned());
        }
    }

    /// The addresses of a name.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.names.get(&name.to_ascii_lowercase()).into_iter().flatten().copied()
    }

    /// All names, sorted, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.names.keys().map(String::as_str)
    }

    /// The table that [`crate::View`] reads.
    pub fn to_table(&self) -> Vec<u8> {
        let mut text = self.network.as_bytes().to_vec();
        let (mut rows, mut addresses, mut reverse) = (Vec::new(), Vec::new(), Vec::new());
        let mut address_count = 0;
        for (name, of_name) in &self.names {
            rows.extend(number(text.len()));
            rows.extend(u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
            rows.extend([0; 2]);
            rows.extend(number(address_count));
            rows.extend(number(of_name.len()));
            text.extend(name.as_bytes());
            address_count += of_name.len();
            addresses.extend(of_name.iter().flat_map(|address| layout::address_bytes(*address)));
        }
        let mut sorted: Vec<_> =
            self.reverse.iter().map(|(address, name)| (layout::address_bytes(*address), name)).collect();
        sorted.sort_unstable();
        for (address, name) in sorted {
            reverse.extend(address);
            reverse.extend(number(text.len()));
            reverse.extend(number(name.len()));
            text.extend(name.as_bytes());
        }
        let mut table =
            Vec::with_capacity(HEADER_BYTES + rows.len() + addresses.len() + reverse.len() + text.len());
        table.extend(MAGIC);
        table.extend(FORMAT.to_le_bytes());
        for count in [self.names.len(), address_count, self.reverse.len(), self.network.len()] {
            table.extend(number(count));
        }
        table.extend([0; 4]);
        for part in [rows, addresses, reverse, text] {
            table.extend(part);
        }
        table
    }
}

/// Counts and places, which stay far below 4 GiB: a network has some hundred thousand names at most.
fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
