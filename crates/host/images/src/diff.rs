//! Makes a layer's archive of what a container changed: its overlay's upper folder.
//!
//! In: the upper folder, the layers below it. Out: the tar of a layer, with whiteouts as archives have them. What the
//! runtime itself made for its mounts is left out, and so are folders that were only copied up. The folder may change
//! meanwhile; no link in it is ever followed. Never changes anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::{Entry, Kind};
use crate::archive_write::ArchiveWriter;
use crate::view::{FileKind, Meta, View, join, xattrs_of};

/// Source: Linux, `Documentation/filesystems/overlayfs.rst`.
const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";
/// Deepest path, as for unpacking: what is written must be read again.
const MAX_DEPTH: usize = 256;
/// Made by the runtime when the image lacks them, empty: places to mount on.
/// Source: moby, `daemon/initlayer/setup_unix.go`, which keeps them in a layer of their own.
const MOUNT_PLACES: [&[u8]; 9] = [
    b"etc",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/resolv.conf",
    b"dev",
    b"proc",
    b"sys",
    b".dockerenv",
    b"dev/console",
];

/// Writes the plain tar of a layer. Boxed, since what makes layers lies in several crates.
pub type LayerWriter = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// The layer that `upper` is on `lower` (folders of layers, top first).
pub fn diff(upper: PathBuf, lower: Vec<PathBuf>) -> LayerWriter {
    Box::new(move |out| write_diff(&upper, &lower, out))
}

fn write_diff(upper: &Path, lower: &[PathBuf], out: &mut dyn Write) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(upper, flags, Mode::empty())?;
    let mut differ = Differ {
        lower: View::open(lower)?,
        out: ArchiveWriter::new(out),
        pending: Vec::new(),
        linked: BTreeMap::new(),
    };
    differ.folder(&Here { fd: root.as_fd(), path: b"", depth: 0, is_hidden: false })?;
    differ.out.finish().map(drop)
}

struct Differ<W> {
    lower: View,
    out: ArchiveWriter<W>,
    /// Folders on the way to where we are that are not written: they count only when something in them does.
    pending: Vec<Entry>,
    /// First path of each file with several.
    linked: BTreeMap<(u64, u64), Vec<u8>>,
}

/// A folder being read.
struct Here<'a> {
    fd: BorrowedFd<'a>,
    path: &'a [u8],
    depth: usize,
    /// Whether it hides what lower layers have at its place.
    is_hidden: bool,
}

impl<W: Write> Differ<W> {
    fn folder(&mut self, here: &Here<'_>) -> io::Result<()> {
        if here.depth > MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a path is too deep for a layer"));
        }
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(here.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        for name in names {
            self.entry(here, &name)?;
        }
        Ok(())
    }

    fn entry(&mut self, here: &Here<'_>, name: &[u8]) -> io::Result<()> {
        let stat = match rustix::fs::statat(here.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let (meta, path) = (Meta::of(&stat), join(here.path, name));
        match meta.kind {
            _ if meta.is_whiteout() => {
                let path = join(here.path, &[b".wh.", name].concat());
                self.write(&Entry { path, mode: 0, ..plain(Kind::File, &meta) }, None)
            }
            FileKind::Folder => self.sub_folder(here, name, path, &meta),
            // Archives cannot hold them. Source: moby, `pkg/archive`.
            FileKind::Socket => Ok(()),
            FileKind::File if meta.size == 0 && is_mount_place(&path) => Ok(()),
            FileKind::File => self.file(here.fd, name, path, &stat),
            FileKind::Symlink => {
                let link = rustix::fs::readlinkat(here.fd, name, Vec::new())?.into_bytes();
                self.write(&Entry { path, link, ..plain(Kind::Symlink, &meta) }, None)
            }
            FileKind::Fifo => self.write(&Entry { path, ..plain(Kind::Fifo, &meta) }, None),
            FileKind::CharDevice => self.write(&Entry { path, ..plain(Kind::CharDevice, &meta) }, None),
            FileKind::BlockDevice => self.write(&Entry { path, ..plain(Kind::BlockDevice, &meta) }, None),
        }
    }

    fn sub_folder(&mut self, here: &Here<'_>, name: &[u8], path: Vec<u8>, meta: &Meta) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(here.fd, name, flags, Mode::empty())?;
        if xattr(&fd, REDIRECT)?.is_some() {
            let text =
                "a renamed folder refers to a lower layer: overlayfs must be used without redirect_dir";
            return Err(io::Error::other(text));
        }
        let is_opaque = xattr(&fd, OPAQUE)?.is_some_and(|value| value == b"y");
        let entry = Entry { path: path.clone(), xattrs: xattrs_of(&fd)?, ..plain(Kind::Folder, meta) };
        let below = match here.is_hidden {
            true => None,
            false => self.lower.locate(&path, false).ok().and_then(|located| located.found),
        };
        let counts = match &below {
            Some(below) => is_opaque || !same(&below.meta, meta),
            None => !is_mount_place(&path),
        };
        let before = self.pending.len();
        self.pending.push(entry);
        if counts {
            self.flush()?;
        }
        if is_opaque && below.is_some() {
            let path = join(&path, b".wh..wh..opq");
            self.write(&Entry { path, mode: 0, ..plain(Kind::File, meta) }, None)?;
        }
        let is_hidden = here.is_hidden || is_opaque || below.is_none();
        self.folder(&Here { fd: fd.as_fd(), path: &path, depth: here.depth + 1, is_hidden })?;
        self.pending.truncate(before);
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>, seen: &Stat) -> io::Result<()> {
        if seen.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(seen.st_dev, seen.st_ino)) {
                let link = first.clone();
                return self.write(&Entry { path, link, ..plain(Kind::HardLink, &Meta::of(seen)) }, None);
            }
            self.linked.insert((seen.st_dev, seen.st_ino), path.clone());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        // It may be another file by now.
        let meta = Meta::of(&rustix::fs::fstat(&fd)?);
        if meta.kind != FileKind::File {
            return Ok(());
        }
        let entry = Entry { path, xattrs: xattrs_of(&fd)?, ..plain(Kind::File, &meta) };
        self.write(&entry, Some((File::from(fd), meta.size)))
    }

    fn write(&mut self, entry: &Entry, content: Option<(File, u64)>) -> io::Result<()> {
        self.flush()?;
        match content {
            Some((mut file, size)) => self.out.file(entry, size, &mut file),
            None => self.out.entry(entry),
        }
    }

    /// Writes the folders on the way, once.
    fn flush(&mut self) -> io::Result<()> {
        // The depth of the stack must stay, since each folder takes itself off again.
        for entry in &mut self.pending {
            if !entry.path.is_empty() {
                self.out.entry(entry)?;
                entry.path.clear();
            }
        }
        Ok(())
    }
}

/// An entry with these attributes, without name, target and extended ones.
pub fn plain(kind: Kind, meta: &Meta) -> Entry {
    Entry {
        kind,
        path: Vec::new(),
        link: Vec::new(),
        mode: meta.mode,
        uid: meta.uid.into(),
        gid: meta.gid.into(),
        mtime: (meta.mtime, 0),
        device: meta.device,
        xattrs: Vec::new(),
    }
}

fn same(a: &Meta, b: &Meta) -> bool {
    (a.kind, a.mode, a.uid, a.gid) == (b.kind, b.mode, b.uid, b.gid)
}

fn is_mount_place(path: &[u8]) -> bool {
    MOUNT_PLACES.contains(&path)
}

fn xattr(fd: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 4096];
    match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
