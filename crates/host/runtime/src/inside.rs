//! Finds and makes paths inside a container's root, wherever its symbolic links point.
//!
//! In: a directory that is the root, and a path of the container. Out: descriptors of what is there, never of anything
//! outside. Never follows the magic links of `/proc`, which lead out of any root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// How often a path is looked up again when somebody renames directories meanwhile, and how many dangling links are
/// followed. Source: the kernel's limit of links in one look-up is 40.
const MAX_TRIES: usize = 40;

/// A root directory that paths cannot leave.
#[derive(Debug)]
pub(crate) struct Inside {
    root: OwnedFd,
}

/// What to make at the end of a path when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Directory,
    File,
}

/// A reference to what is at `path` inside the directory `root`, which no symbolic link of `path` leaves.
///
/// # Errors
/// The kernel's: nothing there, no directory, too many links.
pub fn find_below(root: &Path, path: &Path) -> Result<OwnedFd, Errno> {
    Inside::new(root)?.find(path)
}

impl Inside {
    /// Takes the directory `path` as root.
    pub(crate) fn new(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: openat(CWD, path, flags, Mode::empty())? })
    }

    /// Takes an open directory as root.
    pub(crate) fn of(root: OwnedFd) -> Self {
        Self { root }
    }

    /// Gives the root back.
    pub(crate) fn into_root(self) -> OwnedFd {
        self.root
    }

    /// The root itself.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens what is at `path`, as a mere reference.
    pub(crate) fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH)
    }

    /// Opens what is at `path`.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, ResolveFlags::empty())
    }

    /// Opens the directory at `path`, unless a part of the path is a symbolic link.
    pub(crate) fn find_plain(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_with(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let mut tries = 0;
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel asks to try again when something moved during the look-up.
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Opens what is at `path`; makes it and the directories above it when missing, as root with usual permissions.
    pub(crate) fn find_or_make(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        let mut path = clean(path);
        for _ in 0..MAX_TRIES {
            match self.find(&path) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            if let Some(elsewhere) = self.make(&path, missing)? {
                path = elsewhere;
            }
        }
        Err(Errno::LOOP)
    }

    /// Makes what is missing of `path`, or says where a dangling link on the way leads.
    fn make(&self, path: &Path, missing: Missing) -> Result<Option<PathBuf>, Errno> {
        let mut there = PathBuf::new();
        let mut parent = self.find(Path::new("/"))?;
        let mut parts =
            path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        while let Some(part) = parts.next() {
            there.push(part);
            match self.find(&there) {
                Ok(found) => {
                    parent = found;
                    continue;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            let rest: PathBuf = parts.clone().collect();
            let name = part.as_os_str();
            if let Ok(link) = readlinkat(&parent, name, Vec::new()) {
                use std::os::unix::ffi::OsStrExt as _;
                let link = Path::new(std::ffi::OsStr::from_bytes(link.to_bytes()));
                // An absolute link replaces what came before it, as `join` does.
                there.pop();
                return Ok(Some(there.join(link).join(rest)));
            }
            if rest.as_os_str().is_empty() && missing == Missing::File {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
                existing_is_fine(openat(&parent, name, flags, Mode::from(0o644)).map(drop))?;
            } else {
                existing_is_fine(mkdirat(&parent, name, Mode::from(0o755)))?;
            }
            parent = self.find(&there)?;
        }
        Ok(None)
    }
}

/// Somebody else may have made it in the meantime.
fn existing_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Whether `fd` refers to a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes `.`, `..` and doubled slashes by their text alone, as Docker does with targets of mounts.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root in a temporary directory, and beside it `outside`, which must stay empty.
    struct World {
        folder: tempfile::TempDir,
        inside: Inside,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        let inside = Inside::new(&folder.path().join("root")).unwrap();
        World { folder, inside }
    }

    impl World {
        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join("root").join(path)
        }

        fn outside_is_empty(&self) -> bool {
            std::fs::read_dir(self.folder.path().join("outside")).unwrap().next().is_none()
        }
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let world = world();
        world.inside.find_or_make(Path::new("/a/b/c"), Missing::Directory).unwrap();
        assert!(world.path("a/b/c").is_dir());
        world.inside.find_or_make(Path::new("/x/y"), Missing::File).unwrap();
        assert!(world.path("x/y").is_file());
    }

    #[test]
    fn links_that_lead_out_end_inside() {
        let world = world();
        let outside = world.folder.path().join("outside");
        symlink(&outside, world.path("absolute")).unwrap();
        symlink("../outside", world.path("relative")).unwrap();
        symlink("../../../../../../../../..", world.path("up")).unwrap();
        world.inside.find_or_make(Path::new("/absolute/file"), Missing::File).unwrap();
        world.inside.find_or_make(Path::new("/relative/dir"), Missing::Directory).unwrap();
        world.inside.find_or_make(Path::new("/up/etc/new"), Missing::File).unwrap();
        assert!(world.outside_is_empty());
        assert!(world.path("outside/dir").is_dir());
        assert!(world.path("etc/new").is_file());
        let inner = world.path(outside.strip_prefix("/").unwrap().to_str().unwrap());
        assert!(inner.join("file").is_file());
    }

    #[test]
    fn a_target_with_dots_stays_inside() {
        let world = world();
        world.inside.find_or_make(Path::new("/../../../outside/x"), Missing::File).unwrap();
        assert!(world.outside_is_empty());
        assert!(world.path("outside/x").is_file());
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        let world = world();
        symlink("b", world.path("a")).unwrap();
        symlink("a", world.path("b")).unwrap();
        let error = world.inside.find_or_make(Path::new("/a/x"), Missing::File).unwrap_err();
        assert_eq!(error, Errno::LOOP);
    }

    #[test]
    fn dangling_links_in_a_circle_over_missing_directories_are_refused() {
        let world = world();
        symlink("/missing/../b", world.path("a")).unwrap();
        symlink("/missing/../a", world.path("b")).unwrap();
        assert!(world.inside.find_or_make(Path::new("/a/x"), Missing::File).is_err());
        assert!(world.outside_is_empty());
    }

    #[test]
    fn magic_links_are_not_followed() {
        let inside = Inside::new(Path::new("/")).unwrap();
        assert_eq!(inside.find(Path::new("/proc/self/cwd/x")).unwrap_err(), Errno::LOOP);
        assert_eq!(inside.find(Path::new("/proc/self/root")).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn paths_are_cleaned_by_their_text() {
        for (path, expect) in [("/a//b/./c/..", "/a/b"), ("a", "/a"), ("/..", "/"), ("/", "/")] {
            assert_eq!(clean(Path::new(path)), Path::new(expect));
        }
    }
}
