//! What the resolver of a container is told: whether there is one, and where names come from.
//!
//! In: the engine's decisions. Out: `resolver.json` in the shim's directory, replaced as a whole when a container's networks
//! change; the shim sees it before its next answer. Never holds names: they are in tables that many shims share.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where names come from: a [`ResolverConfig`].
pub const RESOLVER_FILE: &str = "resolver.json";

/// Where a container finds its resolver. Source: moby, `daemon/libnetwork/sandbox_dns_unix.go`, `resolverIPSandbox`.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A container has a resolver at [`RESOLVER_ADDRESS`], port 53, in its own network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverSpec {}

/// Contents of [`RESOLVER_FILE`]. Fields that a shim doesn't know are ignored, those that are missing are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverConfig {
    /// The container's networks, in the order in which they are asked.
    pub networks: Vec<NetworkNames>,
    /// Who knows all other names; the first three are asked.
    pub upstreams: Vec<Upstream>,
    /// Nobody is asked for other names, whatever `upstreams` says.
    pub internal: bool,
}

/// Where the names of one network are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNames {
    /// The network.
    pub id: String,
    /// File with a table of the crate `names`. It is replaced by renaming and never changed in place: shims have it mapped.
    pub path: PathBuf,
}

/// A resolver that knows other names, at port 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address.
    pub address: IpAddr,
    /// Whether it is asked from the container's namespace, as one that a user named for it; else from the machine's.
    #[serde(default)]
    pub inside: bool,
}

impl ResolverConfig {
    /// Puts the file into a shim's directory, which is made (mode 0700) if it is missing, unless it says so already. A shim
    /// reads the old or the new one, never a part.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, text) = (dir.join(RESOLVER_FILE), serde_json::to_vec(self)?);
        if fs::read(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let temporary = dir.join(format!(".{RESOLVER_FILE}.new"));
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?.write_all(&text)?;
        fs::rename(temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_daemon_writes_is_understood() {
        let text = r#"{"networks":[{"id":"n","path":"/run/n","mood":"good"}],"upstreams":[{"address":"fd00::1"}],"new":1}"#;
        let config: ResolverConfig = serde_json::from_str(text).unwrap();
        let upstream = Upstream { address: "fd00::1".parse().unwrap(), inside: false };
        let networks = vec![NetworkNames { id: "n".into(), path: "/run/n".into() }];
        assert_eq!(config, ResolverConfig { networks, upstreams: vec![upstream], internal: false });
        assert_eq!(serde_json::from_str::<ResolverConfig>("{}").unwrap(), ResolverConfig::default());
    }
}
