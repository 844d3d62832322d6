//! The snapshot's file: the whole store as of one entry, so that older entries can go.
//!
//! ```text
//!  8 bytes    then, repeated: 4 bytes, BE   rest
//!  "skepsnap"                 its length    a sealed piece: first position and members, then the store, then an end
//! ```
//!
//! Written beside the old one, synced, then renamed over it: there is always one whole snapshot or none. Neither writing
//! nor sending holds the encoded store in memory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::command::{LogId, StoredMembership};
use crate::disk::{Disk, DiskFile, Open};
use crate::encoding::{DecodeError, PlacedMembers, Position};
use crate::sealing::{Sealer, UnsealError};

const MAGIC: &[u8; 8] = b"skepsnap";

/// The snapshot's file.
pub(crate) const FILE: &str = "snapshot";
/// One that is being made here.
const DRAFT: &str = "snapshot.new";
/// One that another manager sends.
const INCOMING: &str = "snapshot.incoming";

/// Of the store, per piece. chosen: what one message carries well.
const PIECE_BYTES: usize = 1024 * 1024;

/// A sealed piece is never larger. chosen: room for members and the seal.
const MAX_RECORD_BYTES: u32 = 2 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Header {
    at: Option<Position>,
    members: PlacedMembers,
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
    #[error("its header cannot be read")]
    Header(#[source] DecodeError),
    #[error("piece {number} cannot be opened")]
    Piece { number: u64, source: UnsealError },
}

/// Where the snapshots of a log live.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    disk: Arc<dyn Disk>,
    sealer: Arc<Sealer>,
    /// Held while the file is made or replaced.
    turn: Arc<Mutex<()>>,
}

/// A whole snapshot on disk: what openraft hands around instead of its bytes. It stays readable when it is replaced.
#[derive(Clone)]
pub(crate) struct SnapshotBody {
    file: Arc<dyn DiskFile>,
    sealer: Arc<Sealer>,
    pub(crate) bytes: u64,
    is_incoming: bool,
}

/// A snapshot as it was found.
pub(crate) struct Snapshot {
    pub(crate) at: Option<LogId>,
    pub(crate) members: StoredMembership,
    pub(crate) body: SnapshotBody,
}

/// What a piece is sealed for: its number, and whether it is the last.
fn place(number: u64, is_last: bool) -> [u8; 17] {
    let mut place = *b"snapshot\0\0\0\0\0\0\0\0\0";
    place[8..16].copy_from_slice(&number.to_be_bytes());
    place[16] = u8::from(is_last);
    place
}

/// Writes a snapshot piece by piece.
pub(crate) struct SnapshotDraft {
    file: Arc<dyn DiskFile>,
    sealer: Arc<Sealer>,
    offset: u64,
    number: u64,
    piece: Vec<u8>,
    bytes: u64,
}

impl SnapshotDraft {
    fn new(
        file: Arc<dyn DiskFile>,
        sealer: Arc<Sealer>,
        at: Option<LogId>,
        members: &StoredMembership,
    ) -> io::Result<Self> {
        file.write_at(0, MAGIC)?;
        let mut draft =
            Self { file, sealer, offset: MAGIC.len() as u64, number: 0, piece: Vec::new(), bytes: 0 };
        let header = Header { at: at.map(Position::of), members: PlacedMembers::of(members) };
        draft.put(&serde_json::to_vec(&header)?, false)?;
        Ok(draft)
    }

    fn put(&mut self, content: &[u8], is_last: bool) -> io::Result<()> {
        let record = self.sealer.seal(&place(self.number, is_last), content);
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&record);
        self.file.write_at(self.offset, &framed)?;
        self.offset += framed.len() as u64;
        self.number += 1;
        Ok(())
    }

    /// Ends it; it is on disk, under the name it was begun with.
    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let bytes = self.bytes;
        self.put(&bytes.to_be_bytes(), true)?;
        self.file.sync()?;
        Ok(bytes)
    }
}

impl Write for SnapshotDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.bytes += piece.len() as u64;
        self.put(&piece, false)?;
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }
}

/// Reads pieces in order.
pub(crate) struct Pieces {
    file: Arc<dyn DiskFile>,
    sealer: Arc<Sealer>,
    offset: u64,
    number: u64,
    ended: bool,
}

impl Pieces {
    fn new(file: Arc<dyn DiskFile>, sealer: Arc<Sealer>) -> Result<Self, ReadSnapshotError> {
        let mut magic = [0; MAGIC.len()];
        file.read_at(0, &mut magic).map_err(into_short)?;
        if &magic != MAGIC {
            return Err(ReadSnapshotError::Magic);
        }
        Ok(Self { file, sealer, offset: MAGIC.len() as u64, number: 0, ended: false })
    }

    /// The next piece of the file, sealed.
    fn record(&mut self) -> Result<Vec<u8>, ReadSnapshotError> {
        let mut length = [0; 4];
        self.file.read_at(self.offset, &mut length).map_err(into_short)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_RECORD_BYTES {
            return Err(ReadSnapshotError::Short);
        }
        let mut record = vec![0; length as usize];
        self.file.read_at(self.offset + 4, &mut record).map_err(into_short)?;
        self.offset += 4 + u64::from(length);
        Ok(record)
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, ReadSnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let record = self.record()?;
        let number = self.number;
        self.number += 1;
        match self.sealer.open(&place(number, false), &record) {
            Ok(piece) => Ok(Some(piece)),
            Err(UnsealError::Damaged) => {
                let end = self.sealer.open(&place(number, true), &record);
                end.map_err(|source| ReadSnapshotError::Piece { number, source })?;
                self.ended = true;
                Ok(None)
            }
            Err(source) => Err(ReadSnapshotError::Piece { number, source }),
        }
    }

    /// Skips to the end, which says how large the store is, encoded.
    fn skip_to_end(mut self) -> Result<u64, ReadSnapshotError> {
        let length = self.file.len()?;
        let mut record = Vec::new();
        while self.offset < length {
            record = self.record()?;
            self.number += 1;
        }
        let number = self.number.saturating_sub(1);
        let end = self
            .sealer
            .open(&place(number, true), &record)
            .map_err(|source| ReadSnapshotError::Piece { number, source })?;
        Ok(u64::from_be_bytes(end.try_into().map_err(|_| ReadSnapshotError::Short)?))
    }

    fn header(&mut self) -> Result<(Option<LogId>, StoredMembership), ReadSnapshotError> {
        let header = self.next()?.ok_or(ReadSnapshotError::Short)?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|error| ReadSnapshotError::Header(error.into()))?;
        let members = header.members.into_stored().map_err(ReadSnapshotError::Header)?;
        Ok((header.at.map(Position::into_log_id), members))
    }
}

fn into_short(error: io::Error) -> ReadSnapshotError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadSnapshotError::Short,
        _ => ReadSnapshotError::Read(error),
    }
}

impl SnapshotBody {
    /// Its pieces, from the first one of the store.
    pub(crate) fn pieces(&self) -> Result<Pieces, ReadSnapshotError> {
        let mut pieces = Pieces::new(Arc::clone(&self.file), Arc::clone(&self.sealer))?;
        pieces.header()?;
        Ok(pieces)
    }

    /// The whole store, encoded.
    pub(crate) fn read(&self) -> Result<Vec<u8>, ReadSnapshotError> {
        let mut body = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or_default());
        let mut pieces = self.pieces()?;
        while let Some(piece) = pieces.next()? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl SnapshotFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, sealer: Arc<Sealer>) -> Self {
        Self { disk, sealer, turn: Arc::default() }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect("nothing panics while holding it")
    }

    /// Replaces the snapshot by what `fill` writes; it is on disk when this returns.
    pub(crate) fn write(
        &self,
        at: Option<LogId>,
        members: &StoredMembership,
        fill: impl FnOnce(&mut SnapshotDraft) -> io::Result<()>,
    ) -> io::Result<SnapshotBody> {
        let _turn = self.turn();
        let body = self.draft(DRAFT, at, members, fill)?;
        self.disk.rename(DRAFT, FILE)?;
        Ok(body)
    }

    fn draft(
        &self,
        name: &str,
        at: Option<LogId>,
        members: &StoredMembership,
        fill: impl FnOnce(&mut SnapshotDraft) -> io::Result<()>,
    ) -> io::Result<SnapshotBody> {
        let file = self.disk.open(name, Open::Empty)?;
        let mut draft = SnapshotDraft::new(Arc::clone(&file), Arc::clone(&self.sealer), at, members)?;
        let written = fill(&mut draft).and_then(|()| draft.finish());
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                // A full disk should not stay full of a snapshot that is none.
                drop(self.disk.remove(name));
                return Err(error);
            }
        };
        Ok(SnapshotBody { file, sealer: Arc::clone(&self.sealer), bytes, is_incoming: name == INCOMING })
    }

    /// Begins a snapshot that another manager sends. Only one may be under way.
    pub(crate) fn begin_incoming(
        &self,
        at: Option<LogId>,
        members: &StoredMembership,
    ) -> io::Result<SnapshotDraft> {
        let file = self.disk.open(INCOMING, Open::Empty)?;
        SnapshotDraft::new(file, Arc::clone(&self.sealer), at, members)
    }

    /// Ends what [`Self::begin_incoming`] began.
    pub(crate) fn end_incoming(&self, draft: SnapshotDraft) -> io::Result<SnapshotBody> {
        let file = Arc::clone(&draft.file);
        let bytes = draft.finish()?;
        Ok(SnapshotBody { file, sealer: Arc::clone(&self.sealer), bytes, is_incoming: true })
    }

    /// Puts a snapshot that has come in whole in the place of the one that is here.
    pub(crate) fn install(&self, body: &SnapshotBody) -> io::Result<()> {
        let _turn = self.turn();
        if body.is_incoming {
            self.disk.rename(INCOMING, FILE)?;
        }
        Ok(())
    }

    /// Removes what a stop has left half done.
    pub(crate) fn clean(&self) -> io::Result<()> {
        self.disk.remove(DRAFT)?;
        self.disk.remove(INCOMING)
    }

    /// The snapshot, if there is one. Its header is read, its body is not.
    pub(crate) fn open(&self) -> Result<Option<Snapshot>, ReadSnapshotError> {
        let file = match self.disk.open(FILE, Open::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut pieces = Pieces::new(Arc::clone(&file), Arc::clone(&self.sealer))?;
        let (at, members) = pieces.header()?;
        let bytes = pieces.skip_to_end()?;
        let body = SnapshotBody { file, sealer: Arc::clone(&self.sealer), bytes, is_incoming: false };
        Ok(Some(Snapshot { at, members, body }))
    }

    /// Seals the snapshot by the current key if it is not.
    pub(crate) fn reseal(&self) -> Result<(), ReadSnapshotError> {
        let _turn = self.turn();
        let Some(found) = self.open()? else { return Ok(()) };
        if self.is_current(&found.body)? {
            return Ok(());
        }
        let mut pieces = found.body.pieces()?;
        self.draft(DRAFT, found.at, &found.members, |draft| {
            while let Some(piece) = pieces.next().map_err(io::Error::other)? {
                draft.write_all(&piece)?;
            }
            Ok(())
        })?;
        Ok(self.disk.rename(DRAFT, FILE)?)
    }

    fn is_current(&self, body: &SnapshotBody) -> Result<bool, ReadSnapshotError> {
        let mut pieces = Pieces::new(Arc::clone(&body.file), Arc::clone(&self.sealer))?;
        let length = body.file.len()?;
        while pieces.offset < length {
            if !self.sealer.is_current(&pieces.record()?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
