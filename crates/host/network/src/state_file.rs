//! What has to be the same after a restart: the networks, their ids and their subnets.
//!
//! In and out: a small file `networks.json`. Written atomically, before anything uses what it says.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use objects::Timestamp;
use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::record::NetworkRecord;

/// Contents of the file. `subnet` holds the bridge's own address and its prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) created: Timestamp,
    pub(crate) bridge_id: String,
    pub(crate) host_id: String,
    pub(crate) none_id: String,
    pub(crate) subnet: Option<Ipv4Net>,
    /// The bridge was made by us and is ours to remove.
    pub(crate) is_bridge_ours: bool,
    /// Networks that users made.
    #[serde(default)]
    pub(crate) networks: Vec<NetworkRecord>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("networks.json")
}

/// Reads the state, or makes a new one when there is none.
pub(crate) fn load(dir: &Path) -> Result<State, OpenError> {
    let path = path(dir);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| OpenError::State { path, source: io::Error::new(io::ErrorKind::InvalidData, e) }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fresh().map_err(|source| OpenError::State { path, source })
        }
        Err(source) => Err(OpenError::State { path, source }),
    }
}

/// Writes the state; a crash leaves the old or the new one, never a part.
pub(crate) fn save(dir: &Path, state: &State) -> Result<(), OpenError> {
    let path = path(dir);
    replace(&path, state).map_err(|source| OpenError::State { path, source })
}

/// Replaces a file as a whole, together with the folders it is in.
pub(crate) fn replace(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(content)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

fn fresh() -> io::Result<State> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(State {
        created: Timestamp(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)),
        bridge_id: random_id()?,
        host_id: random_id()?,
        none_id: random_id()?,
        subnet: None,
        is_bridge_ours: false,
        networks: Vec::new(),
    })
}

/// 64 random hex digits.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write;
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    }))
}
