//! The snapshot's file: the whole store as of one entry, so that older entries can go.
//!
//! ```text
//!  8 bytes    4 bytes         record of `encoding`                   rest
//!  "skepsnap" its length, BE  position, members, size and checksum   the store
//! ```
//!
//! Written beside the old one, synced, then renamed over it: there is always one whole snapshot or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checksum::crc32;
use crate::command::{LogId, StoredMembership};
use crate::encoding::{self, DecodeError, PlacedMembers, Position};

const MAGIC: &[u8; 8] = b"skepsnap";

/// Only the daemon may read the swarm's state.
const MODE: u32 = 0o600;

/// A snapshot as it was read.
pub(crate) struct Snapshot {
    pub(crate) at: Option<LogId>,
    pub(crate) members: StoredMembership,
    pub(crate) body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    at: Option<Position>,
    members: PlacedMembers,
    bytes: usize,
    sum: u32,
}

/// Why a snapshot's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSnapshotError {
    #[error("read it")]
    Read(#[from] io::Error),
    #[error("it is not a snapshot")]
    Magic,
    #[error("it is cut off")]
    Short,
    #[error("its header is damaged")]
    Header(#[from] DecodeError),
    #[error("its content does not match its checksum")]
    Checksum,
}

/// Where the snapshots of a log live.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the snapshot; it is on disk when this returns.
    pub(crate) fn write(&self, at: Option<LogId>, members: &StoredMembership, body: &[u8]) -> io::Result<()> {
        let header = Header {
            at: at.map(Position::of),
            members: PlacedMembers::of(members),
            bytes: body.len(),
            sum: crc32(body),
        };
        let header = encoding::encode(&header)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        file.write_all(MAGIC)?;
        file.write_all(&length.to_be_bytes())?;
        file.write_all(&header)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The snapshot, if there is one.
    pub(crate) fn read(&self) -> Result<Option<Snapshot>, ReadSnapshotError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        parse(&bytes).map(Some)
    }
}

fn parse(bytes: &[u8]) -> Result<Snapshot, ReadSnapshotError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ReadSnapshotError::Magic)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(ReadSnapshotError::Short)?;
    let (header, body) =
        rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(ReadSnapshotError::Short)?;
    let header: Header = encoding::decode(header)?;
    if body.len() != header.bytes {
        return Err(ReadSnapshotError::Short);
    }
    if crc32(body) != header.sum {
        return Err(ReadSnapshotError::Checksum);
    }
    Ok(Snapshot {
        at: header.at.map(Position::into_log_id),
        members: header.members.into_stored()?,
        body: body.to_vec(),
    })
}
