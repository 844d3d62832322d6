//! Lists what a container has changed of its image's files, as `docker diff` does.
//!
//! In: the upper directory of its overlay, and the layers below. Out: paths that were added, modified or deleted,
//! parents first. Looks at attributes only, like Docker: a file whose time was set back and whose size is the same
//! counts as unchanged. The container may be writing meanwhile; its links are never followed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use docker::Change;
use rustix::fs::{CWD, Dir, Mode, OFlags};

use super::create::lookup_error;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::files::blocking;
use crate::volume::copy_up::{Seen, look};

const MODIFIED: u8 = 0;
const ADDED: u8 = 1;
const DELETED: u8 = 2;
/// Deepest folder that is looked into. Chosen: as archives of a container, which hold one descriptor per level.
const MAX_DEPTH: usize = 512;
/// What the runtime puts into a root that hasn't got it, to mount something there. Docker has a layer for that below
/// the container's own. Source: moby, `daemon/initlayer/setup_unix.go`.
const MOUNT_POINTS: [&str; 7] = ["dev", "etc", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "sys"];

/// Whether an added path with nothing in it is only a place to mount something.
pub(crate) fn is_mount_point(path: &[u8]) -> bool {
    MOUNT_POINTS.iter().any(|known| known.as_bytes() == path)
}

impl Engine {
    /// What the container has changed, parents before what is in them.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>, EngineError> {
        let container = self.inner.registry.find(container)?;
        let record = container.record();
        let id = record.image_id.parse();
        let id = id.map_err(|error: images::ParseDigestError| EngineError::Images(Box::new(error)))?;
        let layers = self.inner.config.images.image(&id).await.map_err(lookup_error)?.layers;
        let upper = self.inner.roots.overlay(&record.id).join("upper");
        blocking(move || {
            list(&upper, layers).map_err(|source| EngineError::File {
                what: "list changes in",
                path: upper.clone(),
                source,
            })
        })
        .await
    }
}

/// The changes of an upper directory against layers, top first.
fn list(upper: &Path, layers: Vec<PathBuf>) -> io::Result<Vec<Change>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, upper, flags, Mode::empty())?;
    let mut changes = Vec::new();
    folder_changes(&folder, &layers, Path::new("/"), 0, &mut changes)?;
    Ok(changes)
}

/// Everything below one folder; `lower` is what the layers have there, top first.
fn folder_changes(
    folder: &OwnedFd,
    lower: &[PathBuf],
    path: &Path,
    depth: usize,
    changes: &mut Vec<Change>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.insert(OsString::from(OsStr::from_bytes(&name)));
        }
    }
    // In a folder that hides the one below, everything of that one is gone unless it was made anew.
    let hidden: BTreeSet<OsString> = if is_opaque(folder) { names_of(lower)? } else { BTreeSet::new() };
    for name in names.union(&hidden) {
        let path = path.join(name);
        let before = look(lower, name)?;
        match lstat(folder, name)? {
            Some(now) if !is_whiteout(&now) => {
                changed(folder, name, (&before, &now), &path, depth, changes)?;
            }
            _ if matches!(before, Seen::Nothing) => {}
            _ => changes.push(change(&path, DELETED)),
        }
    }
    Ok(())
}

/// What is there now, against what was before.
fn changed(
    folder: &OwnedFd,
    name: &OsStr,
    (before, now): (&Seen, &Metadata),
    path: &Path,
    depth: usize,
    changes: &mut Vec<Change>,
) -> io::Result<()> {
    let own = match before {
        Seen::Nothing => Some(ADDED),
        Seen::Directory(dirs) => {
            let top = dirs.first().map(fs::symlink_metadata).transpose()?;
            top.is_none_or(|was| differs(&was, now)).then_some(MODIFIED)
        }
        Seen::Other(_, was) => differs(was, now).then_some(MODIFIED),
    };
    let at = changes.len();
    if now.is_dir() {
        let none = Vec::new();
        let lower = if let Seen::Directory(dirs) = before { dirs } else { &none };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(inner) => folder_changes(&inner, lower, path, depth + 1, changes)?,
            // It is gone, or something else by now.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let has_more = changes.len() > at;
    let is_placeholder = own == Some(ADDED)
        && !has_more
        && (now.is_dir() || now.len() == 0)
        && is_mount_point(path.as_os_str().as_bytes().get(1..).unwrap_or_default());
    if is_placeholder {
        return Ok(());
    }
    // Docker names a folder in which something changed, even if it is the same itself.
    if let Some(kind) = own.or(has_more.then_some(MODIFIED)) {
        changes.insert(at, change(path, kind));
    }
    Ok(())
}

fn change(path: &Path, kind: u8) -> Change {
    Change { path: path.to_string_lossy().into_owned(), kind }
}

/// Source: moby, `pkg/archive/changes_linux.go`, `statDifferent`: of folders, neither size nor time counts.
fn differs(was: &Metadata, now: &Metadata) -> bool {
    let common = |m: &Metadata| (m.mode(), m.uid(), m.gid(), m.rdev());
    let content = |m: &Metadata| (m.mtime(), m.mtime_nsec(), m.len());
    common(was) != common(now) || (!was.is_dir() && content(was) != content(now))
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    matches!(rustix::fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value), Ok(1) if value[0] == b'y')
}

/// The attributes of a name in an open folder; `None` if it is gone.
fn lstat(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<Metadata>> {
    let path = Path::new("/proc/self/fd").join(folder.as_fd().as_raw_fd().to_string()).join(name);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The names that layers together show in a folder, some of which may be whiteouts.
fn names_of(dirs: &[PathBuf]) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for dir in dirs {
        for entry in fs::read_dir(dir)? {
            names.insert(entry?.file_name());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, XattrFlags};
    use std::os::unix::fs::symlink;

    /// Makes `files` below `dir`: a content, `-> link`, `WHITEOUT`, or a folder where the name ends with a slash.
    fn make(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, content) in files {
            let path = dir.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None if *content == "WHITEOUT" => {
                    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
                }
                None => fs::write(path, content).unwrap(),
            }
        }
    }

    fn check(lower: &[&[(&str, &str)]], upper: &[(&str, &str)], opaque: &[&str], expect: &[&str]) {
        let world = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = (0..lower.len()).map(|n| world.path().join(n.to_string())).collect();
        for (layer, files) in layers.iter().zip(lower) {
            make(layer, files);
        }
        let top = world.path().join("upper");
        make(&top, upper);
        for dir in opaque {
            rustix::fs::lsetxattr(top.join(dir), "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .unwrap();
        }
        let found: Vec<String> = list(&top, layers)
            .unwrap()
            .iter()
            .map(|change| format!("{} {}", ["C", "A", "D"][usize::from(change.kind)], change.path))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_was_added_modified_and_deleted_is_told_with_its_folders() {
        check(&[&[("etc/a", "1"), ("usr/bin/x", "x")]], &[], &[], &[]);
        check(
            &[&[("etc/a", "1"), ("usr/bin/x", "x"), ("usr/lib/y", "y")]],
            &[("etc/a", "22"), ("etc/new", ""), ("usr/bin/x", "WHITEOUT"), ("opt/deep/file", "")],
            &[],
            &[
                "C /etc",
                "C /etc/a",
                "A /etc/new",
                "A /opt",
                "A /opt/deep",
                "A /opt/deep/file",
                "C /usr",
                "C /usr/bin",
                "D /usr/bin/x",
            ],
        );
        // A folder that was only looked into, such as the parents of a mount, is the same.
        check(&[&[("usr/bin/x", "x")]], &[("usr/bin/", "")], &[], &[]);
    }

    #[test]
    fn what_an_upper_layer_deleted_is_not_there_to_be_modified() {
        check(&[&[("a", "WHITEOUT")], &[("a", "old"), ("b", "old")]], &[("a", "new")], &[], &["A /a"]);
        check(&[&[("a", "WHITEOUT")], &[("a", "old")]], &[("a", "WHITEOUT")], &[], &[]);
    }

    #[test]
    fn a_folder_made_anew_has_lost_what_was_in_it() {
        check(
            &[&[("d/x", "x"), ("d/y", "y"), ("d/sub/z", "z")]],
            &[("d/y", "yy")],
            &["d"],
            &["C /d", "D /d/sub", "D /d/x", "C /d/y"],
        );
    }

    #[test]
    fn a_change_of_kind_is_one_change() {
        check(
            &[&[("d/x", "x"), ("f", "f")]],
            &[("d", "-> f"), ("f/new", "")],
            &[],
            &["C /d", "C /f", "A /f/new"],
        );
    }

    #[test]
    fn places_to_mount_something_are_not_the_containers_doing() {
        let placeholders =
            [("dev/", ""), ("proc/", ""), ("sys/", ""), ("etc/hosts", ""), ("etc/resolv.conf", "")];
        check(&[&[("bin/x", "x")]], &placeholders, &[], &[]);
        check(&[&[("etc/x", "x")]], &[("etc/hosts", ""), ("data/", "")], &[], &["A /data"]);
        check(
            &[&[]],
            &[("etc/hosts", "own words"), ("dev/thing", "")],
            &[],
            &["A /dev", "A /dev/thing", "A /etc", "A /etc/hosts"],
        );
    }
}
