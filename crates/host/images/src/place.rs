//! Walks and changes a tree that an archive fills, without ever leaving it.
//!
//! In: a folder, normal paths from an archive. Out: open folders and the places of files in them. Every folder is
//! found by `openat2` with `RESOLVE_IN_ROOT`, so that symbolic links made by the archive lead nowhere but into the
//! tree; the last name is never followed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::archive::{Entry, Kind};
use crate::errors::FileError;

/// Source: Linux, `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
const OPAQUE: &str = "trusted.overlay.opaque";
/// The overlay's own attributes: an image must not forge them.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// Folders that no entry describes. Source: moby, `archive.ImpliedDirectoryMode`.
const IMPLIED_MODE: u32 = 0o755;

pub(crate) fn file_error(call: &'static str, path: impl Into<PathBuf>, errno: Errno) -> FileError {
    FileError { call, path: path.into(), error: errno.into() }
}

/// The tree.
pub(crate) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    /// The folder that was found last: entries of an archive come folder by folder.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// An open folder in the tree.
pub(crate) struct Folder {
    fd: Rc<OwnedFd>,
    /// For messages only.
    path: PathBuf,
}

/// A name in an open folder, whether or not something is there.
pub(crate) struct Place {
    folder: Folder,
    name: Vec<u8>,
}

fn show(path: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(path).into_owned())
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Root, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| file_error("open", path, e))?;
        Ok(Root { path: path.to_owned(), fd, last: None })
    }

    /// The tree below an open folder.
    pub(crate) fn of(fd: OwnedFd) -> Root {
        Root { path: PathBuf::from("/"), fd, last: None }
    }

    /// To be called when a folder or link may have been replaced: what was found before may be stale.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The folder at the normal path `path`, made with all its parents if need be.
    pub(crate) fn folder(&mut self, path: &[u8]) -> Result<Folder, FileError> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Folder { fd: Rc::clone(fd), path: show(path) });
        }
        let fd = match self.resolve(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_folders(path)?,
            Err(e) => return Err(file_error("open", show(path), e)),
        };
        let fd = Rc::new(fd);
        self.last = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(Folder { fd, path: show(path) })
    }

    pub(crate) fn folder_if_there(&mut self, path: &[u8]) -> Result<Option<Folder>, FileError> {
        match self.resolve(path) {
            Ok(fd) => Ok(Some(Folder { fd: Rc::new(fd), path: show(path) })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(file_error("open", show(path), e)),
        }
    }

    /// `name` in the folder `parent`, which is made if need be.
    pub(crate) fn place(&mut self, parent: &[u8], name: &[u8]) -> Result<Place, FileError> {
        Ok(Place { folder: self.folder(parent)?, name: name.to_vec() })
    }

    /// `name` in the folder `parent`, which must exist.
    pub(crate) fn existing(&mut self, parent: &[u8], name: &[u8]) -> Result<Place, FileError> {
        let fd = self.resolve(parent).map_err(|e| file_error("link", show(parent).join(show(name)), e))?;
        Ok(Place { folder: Folder { fd: Rc::new(fd), path: show(parent) }, name: name.to_vec() })
    }

    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        loop {
            let found = rustix::fs::openat2(
                &self.fd,
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            // A rename elsewhere on the machine can disturb the walk; the kernel asks to try again.
            if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
                return found;
            }
        }
    }

    /// Makes the missing folders of `path`, from the top down. A whiteout on the way becomes an opaque folder: the
    /// archive hides what was there and then fills it anew.
    fn make_folders(&mut self, path: &[u8]) -> Result<OwnedFd, FileError> {
        let mut above = self.resolve(b"").map_err(|e| file_error("open", &self.path, e))?;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let (so_far, name) = (&path[..end], &path[start..end]);
            start = end + 1;
            above = match self.resolve(so_far) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let folder = Folder { fd: Rc::new(above), path: show(so_far) };
                    Place { folder, name: name.to_vec() }.make_implied_folder()?;
                    self.resolve(so_far).map_err(|e| file_error("open", show(so_far), e))?
                }
                Err(e) => return Err(file_error("open", show(so_far), e)),
            };
        }
        Ok(above)
    }
}

impl Folder {
    /// Hides everything that lower layers have in this folder.
    pub(crate) fn set_opaque(&self) -> Result<(), FileError> {
        rustix::fs::fsetxattr(&*self.fd, OPAQUE, b"y", XattrFlags::empty())
            .map_err(|e| file_error("setxattr", &self.path, e))
    }

    /// Owner, mode and attributes; not the time, which the next file in it would change.
    pub(crate) fn set_attributes(&self, entry: &Entry) -> Result<(), FileError> {
        set_by_fd((*self.fd).as_fd(), &self.path, entry)
    }

    pub(crate) fn set_time(&self, mtime: (i64, u32)) -> Result<(), FileError> {
        rustix::fs::futimens(&*self.fd, &times(mtime)).map_err(|e| file_error("utimensat", &self.path, e))
    }
}

impl Place {
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        (*self.folder.fd).as_fd()
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    fn path(&self) -> PathBuf {
        self.folder.path.join(show(&self.name))
    }

    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> FileError {
        file_error(call, self.path(), errno)
    }

    /// What is here now; links are not followed.
    pub(crate) fn kind(&self) -> Result<Option<FileType>, FileError> {
        Ok(self.stat()?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    fn stat(&self) -> Result<Option<rustix::fs::Stat>, FileError> {
        match rustix::fs::statat(self.dir(), self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("stat", e)),
        }
    }

    pub(crate) fn is_whiteout(&self) -> Result<bool, FileError> {
        Ok(self.stat()?.is_some_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
        }))
    }

    pub(crate) fn is_same_as(&self, other: &Place) -> bool {
        let (a, b) = (self.stat().ok().flatten(), other.stat().ok().flatten());
        a.zip(b).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }

    /// Makes something new here. What an earlier entry left under this name is removed first.
    pub(crate) fn make_fresh<T>(
        &self,
        call: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, FileError> {
        match make(self.dir(), self.name()) {
            Err(Errno::EXIST) => {
                remove_tree(self.dir(), self.name()).map_err(|e| self.error("remove", e))?;
                make(self.dir(), self.name()).map_err(|e| self.error(call, e))
            }
            made => made.map_err(|e| self.error(call, e)),
        }
    }

    pub(crate) fn make_file(&self) -> Result<OwnedFd, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make_fresh("open", |dir, name| rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR))
    }

    fn make_implied_folder(&self) -> Result<(), FileError> {
        let hid_lower = self.is_whiteout()?;
        if hid_lower {
            remove_tree(self.dir(), self.name()).map_err(|e| self.error("remove", e))?;
        }
        rustix::fs::mkdirat(self.dir(), self.name(), Mode::RWXU).map_err(|e| self.error("mkdir", e))?;
        let folder = self.open_folder()?;
        // The umask has no say: the mode is set afterwards.
        rustix::fs::fchmod(&*folder.fd, Mode::from_raw_mode(IMPLIED_MODE))
            .map_err(|e| self.error("chmod", e))?;
        if hid_lower { folder.set_opaque() } else { Ok(()) }
    }

    pub(crate) fn open_folder(&self) -> Result<Folder, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.dir(), self.name(), flags, Mode::empty())
            .map_err(|e| self.error("open", e))?;
        Ok(Folder { fd: Rc::new(fd), path: self.path() })
    }

    pub(crate) fn set_owner(&self, entry: &Entry) -> Result<(), FileError> {
        let (uid, gid) = owner(entry).map_err(|e| self.error("chown", e))?;
        rustix::fs::chownat(self.dir(), self.name(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.error("chown", e))
    }

    /// Owner, mode, attributes and time of a file just made here through `fd`.
    pub(crate) fn set_attributes_of(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), FileError> {
        set_by_fd(fd, &self.path(), entry)?;
        rustix::fs::futimens(fd, &times(entry.mtime)).map_err(|e| self.error("utimensat", e))
    }

    /// Owner, mode, attributes and time of a link or node just made here.
    pub(crate) fn set_attributes(&self, entry: &Entry) -> Result<(), FileError> {
        self.set_owner(entry)?;
        if entry.kind != Kind::Symlink {
            self.set_mode(entry.mode).map_err(|e| self.error("chmod", e))?;
        }
        for (key, value) in wanted(entry, &self.path()) {
            let mut path = format!("/proc/self/fd/{}/", self.dir().as_raw_fd()).into_bytes();
            path.extend(self.name());
            let set = rustix::fs::lsetxattr(&path[..], key, value, XattrFlags::empty());
            forgive(set, key, &self.path())?;
        }
        rustix::fs::utimensat(self.dir(), self.name(), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.error("utimensat", e))
    }
}

impl Place {
    /// Sets the mode of what is here. A running container may put a link there at any time: it isn't followed.
    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(self.dir(), self.name(), flags, Mode::empty())?;
        let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::from_raw_mode(mode))
    }
}

/// Owner first: changing it clears setuid and file capabilities.
fn set_by_fd(fd: BorrowedFd<'_>, path: &Path, entry: &Entry) -> Result<(), FileError> {
    let (uid, gid) = owner(entry).map_err(|e| file_error("chown", path, e))?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| file_error("chown", path, e))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| file_error("chmod", path, e))?;
    for (key, value) in wanted(entry, path) {
        forgive(rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()), key, path)?;
    }
    Ok(())
}

fn owner(entry: &Entry) -> Result<(rustix::fs::Uid, rustix::fs::Gid), Errno> {
    // The highest number means "leave as it is" to the kernel, hence is no id.
    let id = |n: u64| u32::try_from(n).ok().filter(|id| *id != u32::MAX).ok_or(Errno::INVAL);
    Ok((rustix::fs::Uid::from_raw(id(entry.uid)?), rustix::fs::Gid::from_raw(id(entry.gid)?)))
}

fn wanted<'a>(entry: &'a Entry, path: &'a Path) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    entry.xattrs.iter().filter_map(move |(key, value)| {
        if key.starts_with(OVERLAY) || key.contains(&0) || key.is_empty() {
            tracing::warn!(path = %path.display(), "image carries an attribute that belongs to overlayfs, left out");
            return None;
        }
        Some((key.as_slice(), value.as_slice()))
    })
}

/// A file system that has no such attributes is no reason to refuse an image. Source: moby, `pkg/archive`.
fn forgive(set: Result<(), Errno>, key: &[u8], path: &Path) -> Result<(), FileError> {
    match set {
        Err(e @ (Errno::OPNOTSUPP | Errno::PERM)) => {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(path = %path.display(), %key, error = %e, "extended attribute left out");
            Ok(())
        }
        other => other.map_err(|e| file_error("setxattr", path, e)),
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes a file or a whole folder without following links.
fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_tree(folder.as_fd(), name)?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
