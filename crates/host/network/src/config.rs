//! What the daemon's flags say about the network.
//!
//! In: values of `--bip`, `--default-address-pool`, `--mtu` and the place for state. Out: a checked configuration.

use std::path::{Path, PathBuf};

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use netplan::{LinkSubnet, PoolRange};

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
    /// Where what lasts until the machine is off is kept: pinned namespaces, files of names.
    pub exec_root: PathBuf,
}

impl NetworkConfig {
    /// The name of the default bridge.
    pub const DEFAULT_BRIDGE: &'static str = "skep0";
    /// Largest packet in bytes. Source: Ethernet; moby, `daemon/config/config.go`.
    pub const DEFAULT_MTU: u32 = 1500;

    /// Settings as without any flag, with state below `data_root`.
    pub fn new(data_root: &Path, exec_root: &Path) -> Self {
        Self {
            state_dir: data_root.join("network"),
            bridge: Self::DEFAULT_BRIDGE.to_owned(),
            bip: None,
            pools: Vec::new(),
            mtu: Self::DEFAULT_MTU,
            exec_root: exec_root.to_owned(),
        }
    }

    /// Name of the machine's end of its link to the ingress namespace: one per daemon, as the bridge is.
    pub(crate) fn mesh_link(&self) -> String {
        if self.bridge == Self::DEFAULT_BRIDGE {
            "skmesh".to_owned()
        } else {
            format!("skm{:08x}", self.hash())
        }
    }

    /// The subnets of that link, one of each version of IP. Only the machine itself ever sees them: link-local addresses
    /// (RFC 3927), which no network routes, and unique local ones (RFC 4193) whose random part is `skep` and what tells the
    /// bridge; those of daemons with other bridges differ.
    pub(crate) fn mesh_subnets(&self) -> [LinkSubnet; 2] {
        let [a, b, high, low] =
            if self.bridge == Self::DEFAULT_BRIDGE { [0; 4] } else { self.hash().to_be_bytes() };
        let v4 = |host| Ipv4Addr::new(169, 254, 192 | (high & 0x1f), (low & 0xfc) | host);
        let pair = |bytes: [u8; 2]| u16::from_be_bytes(bytes);
        let v6 = |host| Ipv6Addr::new(0xfd73, 0x6b65, 0x7000, pair([a, b]), pair([high, low]), 0, 0, host);
        let machine = Ipv4Net::new(v4(1), 30).expect("30 is a prefix length").into();
        let machine6 = Ipv6Net::new(v6(1), 126).expect("126 is a prefix length").into();
        [
            LinkSubnet { machine, ingress: v4(2).into() },
            LinkSubnet { machine: machine6, ingress: v6(2).into() },
        ]
    }

    /// FNV-1a of the bridge's name: the same after every start.
    fn hash(&self) -> u32 {
        self.bridge.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// Name of our nf_tables table: `skep` for the default bridge, `skep-<bridge>` for another.
    pub(crate) fn table(&self) -> String {
        if self.bridge == Self::DEFAULT_BRIDGE { "skep".to_owned() } else { format!("skep-{}", self.bridge) }
    }
}
