//! What a machine is: its name, its place in the network, how its daemon is started, and the folder that is its disk.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::{MachineError, file};
use crate::files;

const SPEC: &str = "machine.json";

/// A machine as it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its host name.
    pub name: String,
    /// Its address, with the length of the network.
    pub address: Ipv4Net,
    /// Its address of IPv6, which it has if this machine has IPv6; `None` for machines of before.
    #[serde(default)]
    pub address6: Option<Ipv6Net>,
    /// Its default route.
    pub gateway: Ipv4Addr,
    /// The bridge out here that it is plugged into.
    pub bridge: String,
    /// Name of its link out here, at most 15 bytes.
    pub link: String,
    /// Control group below which its containers are, such as `/skep-play/play/n1`.
    pub cgroup_parent: String,
    /// Flags of its daemon besides those that this crate sets.
    pub daemon_flags: Vec<String>,
}

impl Spec {
    /// Its addresses that it can have here.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let address6 = self.address6.filter(|_| has_ipv6()).map(IpNet::V6);
        [IpNet::V4(self.address)].into_iter().chain(address6).map(|own| (own.addr(), own.prefix_len()))
    }
}

/// Whether links of this network namespace may have IPv6.
pub(crate) fn has_ipv6() -> bool {
    const DISABLED: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    std::fs::read_to_string(DISABLED).is_ok_and(|value| value.trim() == "0")
}

/// A machine and its disk.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Absolute path of its folder. Kept short: the path of a socket may have 107 bytes.
    pub folder: PathBuf,
    /// What it is.
    pub spec: Spec,
}

impl Machine {
    /// Makes the folder of a new machine; it is off.
    pub fn create(folder: &Path, spec: Spec) -> Result<Self, MachineError> {
        std::fs::create_dir_all(folder).map_err(file("make", folder))?;
        let machine = Self { folder: folder.to_owned(), spec };
        let text = serde_json::to_vec_pretty(&machine.spec).expect("a spec serialises");
        files::replace(&folder.join(SPEC), &text)?;
        Ok(machine)
    }

    /// Reads the machine of a folder.
    pub fn open(folder: &Path) -> Result<Self, MachineError> {
        let path = folder.join(SPEC);
        let text = std::fs::read(&path).map_err(file("read", &path))?;
        let spec = serde_json::from_slice(&text).map_err(|error| file("read", &path)(error.into()))?;
        Ok(Self { folder: folder.to_owned(), spec })
    }

    /// Where its daemon listens, from inside and outside alike.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// What its daemon logs.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Where its daemon keeps its state.
    pub(crate) fn data_root(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.join("machine.pid")
    }
}
