//! `swarm-node.key`: a node's key, and on a manager the keys of its storage.
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----            or SEALED PRIVATE KEY, when the swarm locks its managers
//! kek-version: 3                         the version of the lock that the file follows
//! raft-dek: <base 64>                    the key of the managers' storage, sealed as the node's key is
//! raft-dek-pending: <base 64>            the next one, until nothing needs the present one any more
//!
//! <PKCS #8, in base 64>
//! -----END PRIVATE KEY-----
//! ```
//!
//! In: keys, and the unlock key. Out: the file, replaced as a whole; or keys. The names are Docker's. Never keeps an
//! unlock key, and never writes one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::authority::PkiError;
use crate::files::{self, SaveError};
use crate::node_key::NodeKey;
use crate::unlock_key::UnlockKey;
use crate::{base64, seal, trust_bundle};

const FILE: &str = "swarm-node.key";
const OPEN: &str = "PRIVATE KEY";
const SEALED: &str = "SEALED PRIVATE KEY";
// Source of the three names: swarmkit, `manager/deks.go` and `ca/keyreadwriter.go`.
const CURRENT: &str = "raft-dek";
const PENDING: &str = "raft-dek-pending";
const LOCK_VERSION: &str = "kek-version";
/// What a sealed key is sealed for, beside the names of the headers.
const NODE_KEY: &str = "node-key";

/// A key of a manager's storage: AES-256.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; 32]);

/// The keys of a manager's storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeys {
    /// What the storage was sealed with until now.
    pub current: DataKey,
    /// What new entries are sealed with; the present key goes when a snapshot covers everything it sealed.
    pub pending: Option<DataKey>,
}

/// The content of an open key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The node's key.
    pub node_key: NodeKey,
    /// The storage's; `None` on a worker.
    pub data_keys: Option<DataKeys>,
    /// The `unlock_key_version` of the cluster that the file follows; zero when the swarm never locked.
    pub lock_version: u64,
}

/// The content of a key file that needs the unlock key.
#[derive(Clone, Debug)]
pub struct LockedKeyFile {
    parts: Parts,
}

/// What is on disk.
#[derive(Clone, Debug)]
pub enum StoredKey {
    /// Anybody who reads the file has the key.
    Open(KeyFile),
    /// The unlock key is needed.
    Locked(LockedKeyFile),
}

/// Why a key file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not a key file, or damaged.
    #[error(
        "`{path}` is not a node's key file, or damaged; restore it, or let the node leave and join again"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

/// Not the key that the file was locked with. Source of the text: moby, `daemon/cluster` (`errBadUnlockKey`…).
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("swarm could not be unlocked: invalid key provided")]
pub struct WrongUnlockKey;

impl DataKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
        Ok(Self(bytes))
    }

    /// The key itself. Secret.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKeys {
    /// Keys of a new storage.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self { current: DataKey::generate()?, pending: None })
    }

    /// With a new key on its way. One that is already on its way stays: entries are sealed with it.
    pub fn rotated(&self) -> Result<Self, PkiError> {
        let pending = match &self.pending {
            Some(pending) => pending.clone(),
            None => DataKey::generate()?,
        };
        Ok(Self { current: self.current.clone(), pending: Some(pending) })
    }

    /// With the key on its way as the only one: nothing is sealed with the present one any more.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { current: self.pending.clone().unwrap_or_else(|| self.current.clone()), pending: None }
    }
}

impl StoredKey {
    /// Reads `<directory>/swarm-node.key`; `None` when there is none.
    pub fn load(directory: &Path) -> Result<Option<Self>, KeyFileError> {
        let path = directory.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyFileError::Read { path, source }),
        };
        let parts = Parts::parse(&text);
        match parts {
            Some(parts) if parts.is_sealed => Ok(Some(Self::Locked(LockedKeyFile { parts }))),
            Some(parts) => match parts.open(|_, bytes| Some(bytes.to_vec())) {
                Some(file) => Ok(Some(Self::Open(file))),
                None => Err(KeyFileError::Damaged { path }),
            },
            None => Err(KeyFileError::Damaged { path }),
        }
    }
}

impl LockedKeyFile {
    /// Opens it. The file on disk stays locked.
    pub fn unlock(&self, key: &UnlockKey) -> Result<KeyFile, WrongUnlockKey> {
        self.parts.open(|purpose, bytes| seal::open(key.bytes(), purpose, bytes)).ok_or(WrongUnlockKey)
    }
}

impl KeyFile {
    /// Of a node that has no storage.
    #[must_use]
    pub fn new(node_key: NodeKey) -> Self {
        Self { node_key, data_keys: None, lock_version: 0 }
    }

    /// Writes `<directory>/swarm-node.key`, locked when there is an unlock key; it is on disk when this returns, and
    /// a crash leaves the file of before or this one.
    pub fn save(&self, directory: &Path, lock: Option<&UnlockKey>) -> Result<(), SaveError> {
        let path = directory.join(FILE);
        let text = self.to_text(lock).map_err(|source| SaveError::Seal { path: path.clone(), source })?;
        files::save(directory, &[(FILE, text.as_bytes(), files::SECRET)])
    }

    fn to_text(&self, lock: Option<&UnlockKey>) -> Result<String, PkiError> {
        let stored = |purpose: &str, bytes: &[u8]| match lock {
            Some(key) => seal::seal(key.bytes(), purpose, bytes),
            None => Ok(bytes.to_vec()),
        };
        let label = if lock.is_some() { SEALED } else { OPEN };
        let mut text = format!("-----BEGIN {label}-----\n{LOCK_VERSION}: {}\n", self.lock_version);
        if let Some(keys) = &self.data_keys {
            let pending = keys.pending.as_ref().map(|key| (PENDING, key));
            for (name, key) in [(CURRENT, &keys.current)].into_iter().chain(pending) {
                text.push_str(&format!("{name}: {}\n", base64::encode(&stored(name, key.bytes())?)));
            }
        }
        text.push('\n');
        trust_bundle::push_lines(&mut text, &stored(NODE_KEY, &self.node_key.der()?)?);
        text.push_str(&format!("-----END {label}-----\n"));
        Ok(text)
    }
}

/// The parts of a key file as they are stored, sealed or not.
#[derive(Clone, Debug)]
struct Parts {
    is_sealed: bool,
    lock_version: u64,
    current: Option<Stored>,
    pending: Option<Stored>,
    node_key: Stored,
}

/// Bytes that may be a key in plain.
#[derive(Clone)]
struct Stored(Vec<u8>);

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Parts {
    fn parse(text: &str) -> Option<Self> {
        let (label, rest) = text.split_once("-----BEGIN ")?.1.split_once("-----\n")?;
        let is_sealed = match label {
            OPEN => false,
            SEALED => true,
            _ => return None,
        };
        let (content, _) = rest.split_once(&format!("-----END {label}-----"))?;
        // A file without headers is one of an older version, or of another program: it begins with the key.
        let (headers, body) = content.split_once("\n\n").unwrap_or(("", content));
        let mut parts = Self {
            is_sealed,
            lock_version: 0,
            current: None,
            pending: None,
            node_key: Stored(base64::decode(body)?),
        };
        for header in headers.lines() {
            let (name, value) = header.split_once(':')?;
            match name {
                LOCK_VERSION => parts.lock_version = value.trim().parse().ok()?,
                CURRENT => parts.current = Some(Stored(base64::decode(value)?)),
                PENDING => parts.pending = Some(Stored(base64::decode(value)?)),
                // A newer version may know more.
                _ => {}
            }
        }
        Some(parts)
    }

    fn open(&self, open: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> Option<KeyFile> {
        let data_key = |purpose: &str, stored: &Stored| {
            Some(DataKey(open(purpose, &stored.0)?.as_slice().try_into().ok()?))
        };
        let data_keys = match (&self.current, &self.pending) {
            (Some(current), pending) => Some(DataKeys {
                current: data_key(CURRENT, current)?,
                pending: match pending {
                    Some(pending) => Some(data_key(PENDING, pending)?),
                    None => None,
                },
            }),
            (None, Some(_)) => return None,
            (None, None) => None,
        };
        let node_key = NodeKey::from_der(&open(NODE_KEY, &self.node_key.0)?).ok()?;
        Some(KeyFile { node_key, data_keys, lock_version: self.lock_version })
    }
}
