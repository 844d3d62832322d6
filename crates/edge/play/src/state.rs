//! A play on the disk: its network and its machines. Everything can be found again from here, by any process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use cli::CliError;
use ipnet::Ipv4Net;
use machine::{Lan, Machine, Spec};
use serde::{Deserialize, Serialize};

use crate::failed;

/// Where plays are kept; short, because paths of sockets are limited.
const ROOT: &str = "/var/lib/skep-play";

/// The file of a play.
const FILE: &str = "play.json";

/// Address of machine `n1` in its network is this and one more. chosen: leaves room for people's own.
const FIRST_HOST: u32 = 10;

/// A play.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Play {
    pub(crate) name: String,
    pub(crate) lan: Lan,
    /// Names of the machines, in order.
    pub(crate) nodes: Vec<String>,
}

impl Play {
    /// A play that does not exist yet.
    pub(crate) fn new(name: &str, subnet: Ipv4Net, nodes: u8) -> Result<Self, CliError> {
        let fits = subnet.hosts().count() > usize::from(nodes) + FIRST_HOST as usize;
        let gateway = subnet.hosts().next().filter(|_| fits);
        let gateway =
            gateway.ok_or_else(|| CliError::new(format!("{subnet} is too small for {nodes} machines")))?;
        let address = Ipv4Net::new(gateway, subnet.prefix_len()).expect("the length is that of a network");
        Ok(Self {
            name: name.to_owned(),
            lan: Lan { name: link_name(name), address },
            nodes: (1..=nodes).map(|number| format!("n{number}")).collect(),
        })
    }

    pub(crate) fn folder(name: &str) -> Result<PathBuf, CliError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(is_plain) {
            return Err(CliError::new(format!(
                "invalid name `{name}`: letters, digits, `-` and `_`, at most 40 of them"
            )));
        }
        Ok(Path::new(ROOT).join(name))
    }

    pub(crate) fn load(name: &str) -> Result<Self, CliError> {
        let path = Self::folder(name)?.join(FILE);
        let text = std::fs::read(&path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return CliError::new(format!(
                    "there is no play `{name}`; start one with `skep play --nodes 3`"
                ));
            }
            CliError::file("read", &path.to_string_lossy(), &error)
        })?;
        serde_json::from_slice(&text).map_err(|error| CliError::new(format!("{}: {error}", path.display())))
    }

    pub(crate) fn save(&self) -> Result<(), CliError> {
        let folder = Self::folder(&self.name)?;
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("a play serialises");
        let next = folder.join("play.json.new");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&next, text))
            .and_then(|()| std::fs::rename(&next, &path))
            .map_err(|error| CliError::file("write", &path.to_string_lossy(), &error))
    }

    /// Makes the folders of its machines.
    pub(crate) fn make_machines(&self, daemon_flags: &[String]) -> Result<Vec<Machine>, CliError> {
        let (folder, mut machines) = (Self::folder(&self.name)?, Vec::new());
        for (name, number) in self.nodes.iter().zip(1..) {
            let spec = Spec {
                name: name.clone(),
                address: Ipv4Net::new(self.address_of(number), self.lan.address.prefix_len())
                    .expect("the length is that of a network"),
                address6: Some(self.lan.address6(self.address_of(number))),
                gateway: self.lan.address.addr(),
                bridge: self.lan.name.clone(),
                link: format!("{}.{number}", self.lan.name),
                cgroup_parent: format!("{}/{name}", self.cgroup()),
                daemon_flags: daemon_flags.to_vec(),
            };
            machines.push(Machine::create(&folder.join(name), spec).map_err(|error| failed(&error))?);
        }
        Ok(machines)
    }

    fn address_of(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.lan.address.network().to_bits() + FIRST_HOST + number)
    }

    /// Control group of all its machines.
    pub(crate) fn cgroup(&self) -> String {
        format!("/skep-play-{}", self.name)
    }

    pub(crate) fn machine(&self, node: &str) -> Result<Machine, CliError> {
        if !self.nodes.iter().any(|name| name == node) {
            let known = self.nodes.join(", ");
            return Err(CliError::new(format!("no machine `{node}`; there are {known}")));
        }
        Machine::open(&Self::folder(&self.name)?.join(node)).map_err(|error| failed(&error))
    }
}

/// A name for the bridge, so short that links can be numbered behind it: 32 bits of FNV-1a of the play's name.
fn link_name(name: &str) -> String {
    let hash =
        name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    format!("skp{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_names_and_addresses_in_order() {
        let play = Play::new("x", "10.99.3.0/24".parse().expect("a network"), 100).expect("it fits");
        assert_eq!(play.nodes[99], "n100");
        assert_eq!(play.lan.address.to_string(), "10.99.3.1/24");
        assert_eq!(play.address_of(100).to_string(), "10.99.3.110");
        assert!(format!("{}.100", play.lan.name).len() <= 15);
        assert_ne!(link_name("x"), link_name("y"));
    }

    #[test]
    fn a_network_without_room_and_a_name_that_is_a_path_are_refused() {
        assert!(Play::new("x", "10.99.3.0/28".parse().expect("a network"), 10).is_err());
        for name in ["", "../x", "a/b", "a b"] {
            assert!(Play::folder(name).is_err(), "{name}");
        }
    }
}
