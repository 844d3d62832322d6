//! Walks through the files of one log.
//!
//! In: the path of the current file, and which entries are wanted. Out: batches of entries, oldest first, across rotated
//! files and across rotations that happen meanwhile. Blocking; never waits for new entries.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use objects::{Nanos, Timestamp};

use crate::entry::{self, LogMessage};
use crate::file::rotated_path;
use crate::reader::{ReadLogError, Tail};

/// Bytes that are read at once. Chosen: large enough to hide the system call, small enough to hold for each reader.
const BLOCK_BYTES: usize = 64 * 1024;

/// A line longer than this is no line of ours: 16 KiB, six bytes for each, and attributes. Chosen with room.
const LONGEST_LINE_BYTES: usize = 1024 * 1024;

/// Rotated files that are looked for at most. Chosen: far beyond any `max-file` in use.
const MOST_FILES: u32 = 10_000;

/// How far a clock may have been set back without hiding entries from `since`. Chosen: time daemons step less.
const CLOCK_SLACK: Nanos = Nanos::from_secs(60);

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl Filter {
    fn is_too_early(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time < since)
    }

    fn is_too_late(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time > until)
    }

    fn wants(&self, time: Timestamp) -> bool {
        !self.is_too_early(time) && !self.is_too_late(time)
    }

    /// Whether nothing before an entry of this time can be wanted.
    fn ends_walk_back(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time + CLOCK_SLACK < since)
    }
}

/// One file of the log, held open: a rotation renames it but can't take it away.
#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// A position in a log.
#[derive(Debug)]
pub(crate) struct Scanner {
    path: PathBuf,
    filter: Filter,
    current: Option<Segment>,
    /// Bytes of the current file that were read and not yet handed out: the beginning of a line.
    carry: Vec<u8>,
    /// Whether a line without end is being passed over.
    skips_line: bool,
}

/// What one step found.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<LogMessage>,
    /// Nothing more is in the files at this moment.
    pub(crate) is_at_end: bool,
    /// An entry was later than `until`: nothing that is wanted follows.
    pub(crate) is_past_until: bool,
}

impl Scanner {
    /// A position before the first wanted entry.
    pub(crate) fn open(path: &Path, tail: Tail, filter: Filter) -> Result<Self, ReadLogError> {
        let mut scanner =
            Self { path: path.to_owned(), filter, current: None, carry: Vec::new(), skips_line: false };
        let mut wanted = match tail {
            Tail::All => u64::MAX,
            Tail::Last(count) => count,
        };
        let walks_back = wanted != u64::MAX || filter.since.is_some();
        let mut start = 0;
        for segment in segments(path) {
            let segment = segment?;
            start = 0;
            let mut is_found = false;
            if walks_back {
                let found = walk_back(&segment.file, &mut wanted, &filter).map_err(failed(&segment.path))?;
                is_found = found.is_some();
                start = found.unwrap_or(0);
            }
            scanner.current = Some(segment);
            if is_found {
                break;
            }
        }
        if let Some(segment) = &mut scanner.current {
            segment.file.seek(SeekFrom::Start(start)).map_err(failed(&segment.path))?;
        }
        Ok(scanner)
    }

    /// The next entries, at most a block's worth; may be empty before the end.
    pub(crate) fn step(&mut self) -> Result<Batch, ReadLogError> {
        if self.current.is_none() {
            self.current = self.next_segment()?;
        }
        if self.read_block()? == 0 {
            let Some(next) = self.next_segment()? else {
                return Ok(Batch { messages: Vec::new(), is_at_end: true, is_past_until: false });
            };
            // The writer may have ended the old file between our last read and its rotation.
            if self.read_block()? == 0 {
                self.current = Some(next);
                self.carry.clear();
                self.skips_line = false;
                self.read_block()?;
            }
        }
        Ok(self.take_lines())
    }

    /// Appends the next block to `carry` and returns its length; 0 at the end of the file.
    fn read_block(&mut self) -> Result<usize, ReadLogError> {
        let Some(segment) = &mut self.current else { return Ok(0) };
        let failed = failed(&segment.path);
        let read =
            (&mut segment.file).take(BLOCK_BYTES as u64).read_to_end(&mut self.carry).map_err(&failed)?;
        if read > 0 {
            return Ok(read);
        }
        let len = segment.file.metadata().map_err(&failed)?.len();
        if segment.file.stream_position().map_err(&failed)? <= len {
            return Ok(0);
        }
        // Somebody emptied the file by hand: go on with what was written since.
        segment.file.rewind().map_err(&failed)?;
        self.carry.clear();
        (&mut segment.file).take(BLOCK_BYTES as u64).read_to_end(&mut self.carry).map_err(&failed)
    }

    fn take_lines(&mut self) -> Batch {
        let mut batch = Batch { messages: Vec::new(), is_at_end: false, is_past_until: false };
        let mut taken = 0;
        while let Some(len) = self.carry[taken..].iter().position(|&byte| byte == b'\n') {
            let line = &self.carry[taken..=taken + len];
            taken += len + 1;
            if std::mem::take(&mut self.skips_line) {
                continue;
            }
            let time = entry::time_of(line);
            batch.is_past_until |= time.is_some_and(|time| self.filter.is_too_late(time));
            if time.is_none_or(|time| self.filter.wants(time)) {
                batch.messages.extend(entry::parse(line).filter(|message| self.filter.wants(message.time)));
            }
        }
        self.carry.drain(..taken);
        if self.carry.len() > LONGEST_LINE_BYTES {
            self.carry.clear();
            self.skips_line = true;
        }
        batch
    }

    /// The file that follows the current one; `None` when it is the newest, or when there is none at all.
    fn next_segment(&self) -> Result<Option<Segment>, ReadLogError> {
        let Some(current) = &self.current else {
            return segments(&self.path).next().transpose();
        };
        let mut newer = None;
        for segment in segments(&self.path) {
            let segment = segment?;
            if segment.identity == current.identity {
                return Ok(newer);
            }
            newer = Some(segment);
        }
        // The current one was rotated out of existence: the oldest that is left follows it.
        Ok(newer)
    }
}

/// The files of a log, newest first. In this order a rotation meanwhile can show a file twice but never hide one.
fn segments(path: &Path) -> impl Iterator<Item = Result<Segment, ReadLogError>> + '_ {
    let mut seen = Vec::new();
    let mut files = (0..MOST_FILES).map(move |index| {
        let path = rotated_path(path, index);
        match File::open(&path).and_then(|file| Ok((file.metadata()?, file))) {
            Ok((metadata, file)) => {
                Ok(Some(Segment { file, path, identity: (metadata.dev(), metadata.ino()) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReadLogError::File { path, source }),
        }
    });
    let mut is_first = true;
    std::iter::from_fn(move || {
        loop {
            let segment = match files.next()? {
                Ok(Some(segment)) => segment,
                // The current file is missing for a moment during a rotation.
                Ok(None) if std::mem::take(&mut is_first) => continue,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            is_first = false;
            if !seen.contains(&segment.identity) {
                seen.push(segment.identity);
                return Some(Ok(segment));
            }
        }
    })
}

/// Finds where the last `wanted` entries of a file begin, counting them down; `None` when it hasn't that many.
fn walk_back(file: &File, wanted: &mut u64, filter: &Filter) -> io::Result<Option<u64>> {
    // `buffer` holds the bytes from `start` to the end of the last line that wasn't looked at.
    let (mut start, mut buffer) = last_lines(file)?;
    loop {
        if *wanted == 0 {
            return Ok(Some(start + buffer.len() as u64));
        }
        if buffer.is_empty() && start == 0 {
            return Ok(None);
        }
        let Some(line_start) = last_line_start(&buffer, start) else {
            if buffer.len() > LONGEST_LINE_BYTES {
                // No line of ours: passed over piece by piece, since a piece isn't an entry either.
                buffer.clear();
            }
            start = prepend_block(file, start, &mut buffer)?;
            continue;
        };
        let line = &buffer[line_start..];
        let time = entry::time_of(line).or_else(|| entry::parse(line).map(|message| message.time));
        if time.is_some_and(|time| filter.ends_walk_back(time)) {
            return Ok(Some(start + buffer.len() as u64));
        }
        // A damaged line isn't counted.
        if time.is_some_and(|time| filter.wants(time)) {
            *wanted -= 1;
        }
        buffer.truncate(line_start);
    }
}

/// The last block of a file without what follows its last newline, which isn't a line yet; and where the block starts.
fn last_lines(file: &File) -> io::Result<(u64, Vec<u8>)> {
    let mut start = file.metadata()?.len();
    loop {
        let mut buffer = Vec::new();
        start = prepend_block(file, start, &mut buffer)?;
        let end = buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if end > 0 || start == 0 {
            buffer.truncate(end);
            return Ok((start, buffer));
        }
    }
}

/// Where the last line of `buffer` begins; `None` when that is before the buffer, which begins at `start` of the file.
fn last_line_start(buffer: &[u8], start: u64) -> Option<usize> {
    let body = &buffer[..buffer.len().saturating_sub(1)];
    match body.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => Some(at + 1),
        None => (start == 0).then_some(0),
    }
}

fn prepend_block(file: &File, start: u64, buffer: &mut Vec<u8>) -> io::Result<u64> {
    let count = start.min(BLOCK_BYTES as u64);
    let mut block = vec![0; usize::try_from(count).expect("a block fits the address space")];
    file.read_exact_at(&mut block, start - count)?;
    block.append(buffer);
    *buffer = block;
    Ok(start - count)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ReadLogError + use<> {
    let path = path.to_owned();
    move |source| ReadLogError::File { path: path.clone(), source }
}
