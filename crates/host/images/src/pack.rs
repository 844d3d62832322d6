//! Writes a tree of files as a tar archive, as Docker's daemon does for `cp`, `export` and `commit`.
//!
//! In: a folder, or a name in it. Out: the archive, to a writer that may be slow. Opens nothing but folders and regular
//! files, never follows a link, and never leaves the tree, whoever changes it meanwhile; a file that vanishes is left
//! out, one that shrinks is filled up with zeros. Holds one buffer, the names of one folder per level, and the names of
//! files with several links.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::Kind;
use crate::errors::FileError;
use crate::place::file_error;
use crate::tar_header::{BLOCK, Header};

/// Chosen: large enough that system calls do not dominate.
const COPY_BUFFER: usize = 128 * 1024;
/// Deepest folder. Chosen: beyond any real tree; each level holds a descriptor and some stack.
const MAX_DEPTH: usize = 512;
/// Source: Linux, `XATTR_SIZE_MAX`, is more, but file capabilities take 24 bytes.
const LONGEST_CAPABILITY: usize = 256;
const CAPABILITY: &[u8] = b"security.capability";
/// Source: Linux, `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
const OPAQUE: &str = "trusted.overlay.opaque";

/// What is packed.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The folder itself and all below it; its entry is called so, without a slash at its end. `""` leaves out the
    /// folder's own entry and begins the names of the others with their own.
    Tree(&'a [u8]),
    /// The file of this name in the folder, whatever it is; the entry is called the same.
    One(&'a [u8]),
    /// All below the folder, which is the upper directory of an overlay: what is deleted there becomes whiteouts.
    Layer,
}

/// Why an archive was not finished.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nobody takes the archive any more.
    #[error("write archive")]
    Write(#[source] io::Error),
}

/// Writes what is in the open folder `folder` to `out`, end mark included. `leave_out` is asked with each path below
/// the folder, such as `etc/hosts`; what it leaves out goes with all below it. Blocks.
///
/// # Errors
/// When a file can't be read, a folder is too deep, or `out` fails. The archive then has no end.
pub fn pack(
    folder: BorrowedFd<'_>,
    what: What<'_>,
    leave_out: &dyn Fn(&[u8]) -> bool,
    out: impl Write,
) -> Result<(), PackError> {
    let mut packer = Packer {
        out,
        leave_out,
        is_layer: matches!(what, What::Layer),
        links: BTreeMap::new(),
        buffer: vec![0; COPY_BUFFER],
        head: Vec::new(),
    };
    match what {
        What::One(name) => packer.entry(folder, &Spot { name, full: name.to_vec(), path: b"", depth: 0 })?,
        What::Tree(name) => {
            let folder = reopen(folder).map_err(|e| file_error("open", show(name), e))?;
            let prefix = if name.is_empty() || name == b"/" { name.to_vec() } else { [name, b"/"].concat() };
            if !name.is_empty() {
                let stat = rustix::fs::fstat(&folder).map_err(|e| file_error("stat", show(name), e))?;
                packer.header(&head_of(&stat, Kind::Folder, &prefix))?;
            }
            packer.children(folder, &prefix, b"", 0)?;
        }
        What::Layer => {
            let folder = reopen(folder).map_err(|e| file_error("open", PathBuf::from("/"), e))?;
            packer.children(folder, b"", b"", 0)?;
        }
    }
    packer.out.write_all(&[0; 2 * BLOCK]).and_then(|()| packer.out.flush()).map_err(PackError::Write)
}

/// The folder that a mere reference refers to, to be read.
fn reopen(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn show(path: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(path).into_owned())
}

/// A file that is to become an entry.
struct Spot<'a> {
    /// In its folder.
    name: &'a [u8],
    /// In the archive.
    full: Vec<u8>,
    /// Below the first folder; empty if it was asked for by its name.
    path: &'a [u8],
    depth: usize,
}

/// The header of a file without link, content and attributes.
fn head_of<'a>(stat: &Stat, kind: Kind, name: &'a [u8]) -> Header<'a> {
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Header {
        kind,
        name,
        link: b"",
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        size: 0,
        device: if is_device { device } else { (0, 0) },
        xattrs: &[],
    }
}

struct Packer<'a, W> {
    out: W,
    leave_out: &'a dyn Fn(&[u8]) -> bool,
    is_layer: bool,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    head: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Everything in `folder`. `prefix` begins the names in the archive, `path` those below the first folder.
    fn children(
        &mut self,
        folder: OwnedFd,
        prefix: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), PackError> {
        let failed = |e| file_error("list", show(prefix), e);
        if depth > MAX_DEPTH {
            return Err(failed(Errno::NAMETOOLONG).into());
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let full = [prefix, &name].concat();
            let below = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            if !(self.leave_out)(&below) {
                self.entry(folder.as_fd(), &Spot { name: &name, full, path: &below, depth })?;
            }
        }
        Ok(())
    }

    /// What `spot` names in `folder`.
    fn entry(&mut self, folder: BorrowedFd<'_>, spot: &Spot<'_>) -> Result<(), PackError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(folder, spot.name, flags, Mode::empty()) {
            // It was removed since the folder was listed.
            Err(Errno::NOENT) if !spot.path.is_empty() => return Ok(()),
            other => other.map_err(|e| file_error("open", show(&spot.full), e))?,
        };
        let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)
            .map_err(|e| file_error("stat", show(&spot.full), e))?;
        let full = spot.full.as_slice();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.folder(found, &stat, spot),
            FileType::RegularFile => return self.file(&found, &stat, full),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found, "", Vec::new())
                    .map_err(|e| file_error("readlink", show(full), e))?;
                return self
                    .header(&Header { link: target.to_bytes(), ..head_of(&stat, Kind::Symlink, full) });
            }
            FileType::CharacterDevice if self.is_layer && stat.st_rdev == 0 => {
                let at = full.len() - spot.name.len();
                let hidden = [&full[..at], b".wh.", spot.name].concat();
                return self.header(&head_of(&stat, Kind::File, &hidden));
            }
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // A socket without its process is of no use, and archives have no word for it.
            _ => return Ok(()),
        };
        self.header(&head_of(&stat, kind, full))
    }

    fn folder(&mut self, found: OwnedFd, stat: &Stat, spot: &Spot<'_>) -> Result<(), PackError> {
        let folder = reopen(found.as_fd()).map_err(|e| file_error("open", show(&spot.full), e))?;
        drop(found);
        let prefix = [&spot.full, &b"/"[..]].concat();
        self.header(&head_of(stat, Kind::Folder, &prefix))?;
        if self.is_layer && is_opaque(&folder) {
            self.header(&head_of(stat, Kind::File, &[&prefix, &b".wh..wh..opq"[..]].concat()))?;
        }
        self.children(folder, &prefix, spot.path, spot.depth + 1)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), PackError> {
        self.head.clear();
        header.append(&mut self.head);
        self.out.write_all(&self.head).map_err(PackError::Write)
    }

    /// `found` is a mere reference, so that nothing but a regular file is ever opened.
    fn file(&mut self, found: &OwnedFd, stat: &Stat, name: &[u8]) -> Result<(), PackError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                return self.header(&Header { link: &first, ..head_of(stat, Kind::HardLink, name) });
            }
            self.links.insert(key, name.to_vec());
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| file_error("open", show(name), e))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut value = vec![0u8; LONGEST_CAPABILITY];
        let xattrs = match rustix::fs::fgetxattr(&file, CAPABILITY, &mut value[..]) {
            Ok(length) if length > 0 => vec![(CAPABILITY, value[..length].to_vec())],
            _ => Vec::new(),
        };
        self.header(&Header { size, xattrs: &xattrs, ..head_of(stat, Kind::File, name) })?;
        self.content(&file, size, name)
    }

    /// Exactly `size` bytes, whatever the file has by now, and the rest of the block.
    fn content(&mut self, file: &OwnedFd, size: u64, name: &[u8]) -> Result<(), PackError> {
        let mut left = size;
        let mut has_ended = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match has_ended {
                true => 0,
                false => match rustix::io::read(file, &mut self.buffer[..most]) {
                    Err(Errno::INTR) => continue,
                    other => other.map_err(|e| file_error("read", show(name), e))?,
                },
            };
            let count = if count == 0 {
                has_ended = true;
                self.buffer[..most].fill(0);
                most
            } else {
                count
            };
            self.out.write_all(&self.buffer[..count]).map_err(PackError::Write)?;
            left -= count as u64;
        }
        let padding = usize::try_from(size % BLOCK as u64).map_or(0, |used| (BLOCK - used) % BLOCK);
        self.out.write_all(&[0; BLOCK][..padding]).map_err(PackError::Write)
    }
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    matches!(rustix::fs::fgetxattr(folder, OPAQUE, &mut value), Ok(1) if value[0] == b'y')
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
