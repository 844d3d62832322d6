//! What the daemon's flags say about the network.
//!
//! In: values of `--bip`, `--default-address-pool`, `--mtu` and the place for state. Out: a checked configuration.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use netplan::PoolRange;

/// Settings of the default network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where ids and the chosen subnet are remembered: `<data root>/network`.
    pub state_dir: PathBuf,
    /// Name of the default bridge; the table is named after it, so that daemons with different bridges share a machine.
    pub bridge: String,
    /// `--bip`: the bridge's own address with its prefix length; `None` lets us choose from `pools`.
    pub bip: Option<Ipv4Net>,
    /// `--default-address-pool`; empty means dockerd's pools.
    pub pools: Vec<PoolRange>,
    /// `--mtu` in bytes; 0 means the default of 1500.
    pub mtu: u32,
}

impl NetworkConfig {
    /// The name of the default bridge.
    pub const DEFAULT_BRIDGE: &'static str = "skep0";
    /// Largest packet in bytes. Source: Ethernet; moby, `daemon/config/config.go`.
    pub const DEFAULT_MTU: u32 = 1500;

    /// Settings as without any flag, with state below `data_root`.
    pub fn new(data_root: &std::path::Path) -> Self {
        Self {
            state_dir: data_root.join("network"),
            bridge: Self::DEFAULT_BRIDGE.to_owned(),
            bip: None,
            pools: Vec::new(),
            mtu: Self::DEFAULT_MTU,
        }
    }

    /// Name of our nf_tables table: `skep` for the default bridge, `skep-<bridge>` for another.
    pub(crate) fn table(&self) -> String {
        if self.bridge == Self::DEFAULT_BRIDGE { "skep".to_owned() } else { format!("skep-{}", self.bridge) }
    }
}
