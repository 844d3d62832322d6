//! The files of one json-file log: appends whole lines in batches, and rotates.
//!
//! In: encoded lines. Out: the current file and its older companions. A full disk costs lines, which are counted, never
//! the container: no error leaves this file after it was opened. Never looks into a line.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::spec::JsonFileSpec;

/// Bytes that are collected before they are written. Chosen: a system call for each 32 KiB costs nothing measurable, and
/// every container's shim pays for the buffer.
const FLUSH_AT: usize = 32 * 1024;

/// Room beyond [`FLUSH_AT`] for the line that crosses it, so that the buffer seldom grows.
const FLUSH_SLACK: usize = 16 * 1024;

/// Permissions of a log. Source: moby, `loggerutils/logfile.go` (0640).
const FILE_MODE: u32 = 0o640;

/// Why a log can't be opened for writing.
#[derive(Debug, thiserror::Error)]
#[error("open log file `{}`", path.display())]
pub struct OpenLogError {
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// The path of the `index`th rotated file; 0 is the current one.
pub(crate) fn rotated_path(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{index}"));
    name.into()
}

/// A log open for writing.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    max_size: u64,
    max_files: u32,
    /// `None` after a rotation that could not make a new file; it is tried again with each batch.
    file: Option<File>,
    /// Bytes in the current file.
    size: u64,
    /// Encoded lines that wait to be written, and how many.
    pending: Vec<u8>,
    pending_lines: u64,
    dropped: u64,
}

impl LogFile {
    pub(crate) fn open(spec: &JsonFileSpec) -> Result<Self, OpenLogError> {
        let failed = |source| OpenLogError { path: spec.path.clone(), source };
        let mut file = open_append(&spec.path).map_err(failed)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut pending = Vec::with_capacity(FLUSH_AT + FLUSH_SLACK);
        if size > 0 && !ends_with_newline(&mut file).map_err(failed)? {
            // A writer that was killed left half a line; it must not swallow the next one.
            pending.push(b'\n');
        }
        Ok(Self {
            path: spec.path.clone(),
            max_size: spec.max_size.unwrap_or(u64::MAX),
            max_files: spec.max_files.max(1),
            file: Some(file),
            size,
            pending,
            pending_lines: 0,
            dropped: 0,
        })
    }

    /// Takes one line, which `encode` appends to the buffer it is given.
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.size.saturating_add(self.pending.len() as u64) >= self.max_size {
            self.flush();
            self.rotate_if_full();
        }
        encode(&mut self.pending);
        self.pending_lines += 1;
        if self.pending.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Writes what was collected; lines that can't be written are dropped and counted.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(dropped) = self.write_pending() {
            self.dropped += dropped;
        }
        self.pending.clear();
        self.pending_lines = 0;
    }

    /// Lines that are not in any file because writing failed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Fails with the number of lines that were lost.
    fn write_pending(&mut self) -> Result<(), u64> {
        if self.file.is_none() {
            self.file = open_append(&self.path).ok();
            self.size = 0;
        }
        let Some(file) = &mut self.file else { return Err(self.pending_lines) };
        let written = write_counted(file, &self.pending);
        if written == self.pending.len() {
            self.size += written as u64;
            return Ok(());
        }
        // Whole lines that made it stay; half of one would make the next line unreadable.
        let whole = self.pending[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        cut_back(file, (written - whole) as u64);
        self.size += whole as u64;
        let kept = self.pending[..whole].iter().filter(|&&byte| byte == b'\n').count() as u64;
        Err(self.pending_lines.saturating_sub(kept))
    }

    fn rotate_if_full(&mut self) {
        let Some(file) = &self.file else { return };
        // Somebody may have emptied the file by hand.
        let size = file.metadata().map_or(self.size, |metadata| metadata.len());
        self.size = size;
        if size < self.max_size {
            return;
        }
        // When the old file can't be moved away, the log goes on in it: too large is better than lost.
        if self.shift().is_ok() {
            self.file = open_append(&self.path).ok();
            self.size = 0;
        }
    }

    /// Moves every file one place on. Readers may hold the current one open, so it is never emptied.
    fn shift(&self) -> io::Result<()> {
        if self.max_files == 1 {
            return fs::remove_file(&self.path);
        }
        for index in (1..self.max_files - 1).rev() {
            match fs::rename(rotated_path(&self.path, index), rotated_path(&self.path, index + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, rotated_path(&self.path, 1))
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Writes until done or refused, and returns how many bytes were taken.
fn write_counted(file: &mut File, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What is lost is counted by the caller; a full disk gives nothing else to do.
            Err(_) => break,
        }
    }
    written
}

/// Takes the last `count` bytes away again.
fn cut_back(file: &File, count: u64) {
    if count == 0 {
        return;
    }
    // If this fails too, a torn line stays; readers skip it.
    if let Ok(metadata) = file.metadata() {
        let _ = file.set_len(metadata.len().saturating_sub(count));
    }
}
