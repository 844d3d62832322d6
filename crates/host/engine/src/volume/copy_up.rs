//! Fills an empty volume with what the image has at the place where it gets mounted.
//!
//! In: the image's layers, top first, and a path in the container. Out: a copy in the volume, complete or not at all; what a
//! crash interrupts is finished by the next start. The layers are read as overlayfs would show them, without a mount that a
//! crash could leave behind. Never follows a symbolic link out of the image, never touches a volume that has content, and
//! never replaces the volume's directory: a running container may have it mounted.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, renameat_with,
};

use crate::error::EngineError;
use crate::files::{self, Roots};

/// Begins the names of unfinished copies beside `_data`.
const UNFINISHED_COPY: &str = ".copy-";
/// A complete copy beside `_data`, whose entries are being moved there.
const FILLING: &str = ".filling";
/// How many symbolic links a path may lead through. Source: Linux, `MAXSYMLINKS`.
const LINKS: u32 = 40;
/// Marks a directory that hides the one below. Source: Linux, `Documentation/filesystems/overlayfs.rst`.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Attributes that are overlayfs's own.
const OVERLAY_PREFIX: &str = "trusted.overlay.";

/// Copies the image's directory `destination` into the volume if the volume is empty. One call at a time for each volume.
pub(crate) fn copy_up(
    roots: &Roots,
    volume: &str,
    container: &str,
    layers: &[PathBuf],
    destination: &str,
) -> Result<(), EngineError> {
    let failed = |what, path: &Path, source| EngineError::File { what, path: path.to_owned(), source };
    let (parent, data) = (roots.volume(volume), roots.volume_data(volume));
    finish(&parent)?;
    let has_content = || is_empty(&data).map(|is_empty| !is_empty).map_err(|e| failed("list", &data, e));
    let Some(dirs) =
        find(layers, destination).map_err(|e| failed("look up in image", Path::new(destination), e))?
    else {
        return Ok(());
    };
    if has_content()? {
        return Ok(());
    }
    let copy = parent.join(format!("{UNFINISHED_COPY}{container}"));
    files::remove_dir(&copy)?;
    let copied = copy_dir(&dirs, &copy).map_err(|e| failed("copy image content to volume", &copy, e));
    // A container that runs may have written to it meanwhile: its content stays.
    if copied.is_err() || has_content()? {
        files::remove_dir(&copy)?;
        return copied;
    }
    // From here on the copy is complete, and whoever finds it finishes it.
    fs::rename(&copy, parent.join(FILLING)).map_err(|e| failed("fill volume", &copy, e))?;
    finish(&parent)
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Moves a complete copy into `_data`, entry by entry; none there is fine.
fn finish(volume: &Path) -> Result<(), EngineError> {
    let copy = volume.join(FILLING);
    match move_entries(&copy, &volume.join("_data")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !copy.exists() => return Ok(()),
        other => {
            other.map_err(|source| EngineError::File { what: "fill volume", path: copy.clone(), source })?
        }
    }
    files::remove_dir(&copy)
}

fn move_entries(copy: &Path, data: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(copy)?;
    for entry in fs::read_dir(copy)? {
        let name = entry?.file_name();
        match renameat_with(CWD, copy.join(&name), CWD, data.join(&name), RenameFlags::NOREPLACE) {
            // A container was faster: what it wrote stays.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    copy_attributes(copy, &metadata, data)
}

/// Finishes complete copies in a volume's directory, and removes unfinished ones.
pub(crate) fn sweep(volume: &Path) -> Result<(), EngineError> {
    finish(volume)?;
    for name in files::names_in(volume)? {
        if name.starts_with(UNFINISHED_COPY) {
            files::remove_dir(&volume.join(name))?;
        }
    }
    Ok(())
}

/// What several layers together show at one place.
pub(crate) enum Seen {
    Nothing,
    /// A directory, as those of several layers, top first.
    Directory(Vec<PathBuf>),
    /// Anything else, in the topmost layer that has it.
    Other(PathBuf, Metadata),
}

/// Looks `name` up in directories that lie over one another.
pub(crate) fn look(dirs: &[PathBuf], name: &OsStr) -> io::Result<Seen> {
    let mut found = Vec::new();
    for dir in dirs {
        let path = dir.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if is_whiteout(&metadata) {
            break;
        }
        if !metadata.is_dir() {
            // A file below a directory is hidden by it.
            return Ok(if found.is_empty() { Seen::Other(path, metadata) } else { Seen::Directory(found) });
        }
        let hides_below = is_opaque(&path);
        found.push(path);
        if hides_below {
            break;
        }
    }
    Ok(if found.is_empty() { Seen::Nothing } else { Seen::Directory(found) })
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 1];
    matches!(rustix::fs::lgetxattr(dir, OPAQUE, &mut value), Ok(1) if value[0] == b'y')
}

/// The directory that a path of the container leads to, links followed inside the image; `None` if there is none.
fn find(layers: &[PathBuf], path: &str) -> io::Result<Option<Vec<PathBuf>>> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.iter().filter(|part| *part != "/").rev().map(OsStr::to_owned).collect()
    };
    // The way from the root, so that `..` has somewhere to go.
    let mut way: Vec<Vec<PathBuf>> = vec![layers.to_vec()];
    let mut todo = parts(Path::new(path));
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == "." {
            continue;
        }
        if part == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let here = way.last().expect("the root is never taken away");
        match look(here, &part)? {
            Seen::Directory(dirs) => way.push(dirs),
            Seen::Other(link, metadata) if metadata.is_symlink() => {
                links += 1;
                if links > LINKS {
                    return Ok(None);
                }
                let target = fs::read_link(link)?;
                if target.is_absolute() {
                    way.truncate(1);
                }
                todo.extend(parts(&target));
            }
            Seen::Nothing | Seen::Other(..) => return Ok(None),
        }
    }
    Ok(way.pop())
}

/// Copies what the directories together show; `to` must not exist.
fn copy_dir(dirs: &[PathBuf], to: &Path) -> io::Result<()> {
    let Some(top) = dirs.first() else { return Ok(()) };
    fs::create_dir(to)?;
    let mut names = BTreeSet::new();
    for dir in dirs {
        for entry in fs::read_dir(dir)? {
            names.insert(entry?.file_name());
        }
    }
    for name in names {
        match look(dirs, &name)? {
            Seen::Nothing => {}
            Seen::Directory(below) => copy_dir(&below, &to.join(&name))?,
            Seen::Other(from, metadata) => copy_other(&from, &metadata, &to.join(&name))?,
        }
    }
    copy_attributes(top, &fs::symlink_metadata(top)?, to)
}

fn copy_other(from: &Path, metadata: &Metadata, to: &Path) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else {
        let node = if kind.is_char_device() {
            FileType::CharacterDevice
        } else if kind.is_block_device() {
            FileType::BlockDevice
        } else if kind.is_fifo() {
            FileType::Fifo
        } else {
            // A socket without its process is of no use.
            return Ok(());
        };
        rustix::fs::mknodat(CWD, to, node, Mode::from_raw_mode(metadata.mode() & 0o7777), metadata.rdev())?;
    }
    copy_attributes(from, metadata, to)
}

/// Owner before mode: changing the owner clears set-user-id bits. Times last: everything before changes them.
fn copy_attributes(from: &Path, metadata: &Metadata, to: &Path) -> io::Result<()> {
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    copy_xattrs(from, to)?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    /// Source: Linux, `include/uapi/linux/limits.h`, `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
    const LONGEST: usize = 65536;
    let mut probe = [0u8; 0];
    let length = match rustix::fs::llistxattr(from, &mut probe) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(());
    }
    let mut list = vec![0u8; LONGEST];
    let length = rustix::fs::llistxattr(from, &mut list[..])?;
    let mut value = vec![0u8; LONGEST];
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(OVERLAY_PREFIX.as_bytes()) {
            continue;
        }
        let size = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        match rustix::fs::lsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            // The volume's file system can't hold it: as `cp -a` does, go on without.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        root: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            World { root: tempfile::tempdir().unwrap() }
        }

        fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
            let layer = self.root.path().join(name);
            for (path, content) in files {
                let path = layer.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match content.strip_prefix("-> ") {
                    Some(target) => symlink(target, path).unwrap(),
                    None if *content == "WHITEOUT" => {
                        let kind = FileType::CharacterDevice;
                        rustix::fs::mknodat(CWD, path, kind, Mode::empty(), 0).unwrap();
                    }
                    None => fs::write(path, content).unwrap(),
                }
            }
            layer
        }

        fn copy(&self, layers: &[PathBuf], destination: &str) -> Vec<(String, String)> {
            let roots = Roots::new(self.root.path().join("data"), self.root.path().join("exec"));
            fs::create_dir_all(roots.volume_data("vol")).unwrap();
            copy_up(&roots, "vol", "c1", layers, destination).unwrap();
            let mut files = Vec::new();
            list(&roots.volume_data("vol"), "", &mut files);
            assert_eq!(files::names_in(&roots.volume("vol")).unwrap(), ["_data"]);
            files
        }
    }

    fn list(dir: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
        let mut names = files::names_in(dir).unwrap();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let shown = format!("{prefix}{name}");
            if path.symlink_metadata().unwrap().is_symlink() {
                files.push((shown, format!("-> {}", fs::read_link(path).unwrap().display())));
            } else if path.is_dir() {
                list(&path, &format!("{shown}/"), files);
            } else {
                files.push((shown, fs::read_to_string(path).unwrap()));
            }
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn layers_show_as_one_with_whiteouts_and_hiding_directories() {
        let world = World::new();
        let bottom = world.layer(
            "bottom",
            &[("srv/a", "old"), ("srv/b", "gone"), ("srv/sub/x", "hidden"), ("srv/keep/y", "y")],
        );
        let top = world.layer("top", &[("srv/a", "new"), ("srv/b", "WHITEOUT"), ("srv/sub/z", "z")]);
        rustix::fs::lsetxattr(top.join("srv/sub"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
        let copied = world.copy(&[top, bottom], "/srv");
        assert_eq!(copied, pairs(&[("a", "new"), ("keep/y", "y"), ("sub/z", "z")]));
    }

    #[test]
    fn links_are_followed_inside_the_image_only() {
        let world = World::new();
        let outside = world.root.path().join("secret");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("key"), "key").unwrap();
        let layer = world.layer(
            "layer",
            &[
                ("var/run", "-> /run"),
                ("run/app/pid", "1"),
                ("up", "-> ../../../run"),
                ("leak", &format!("-> {}", outside.display())),
                ("loop", "-> loop"),
            ],
        );
        assert_eq!(world.copy(std::slice::from_ref(&layer), "/leak"), []);
        assert_eq!(world.copy(std::slice::from_ref(&layer), "/loop"), []);
        assert_eq!(world.copy(std::slice::from_ref(&layer), "/var/run/app"), pairs(&[("pid", "1")]));
        let other = World::new();
        let layer =
            other.layer("layer", &[("up", "-> ../../../run"), ("run/app/pid", "1"), ("run/l", "-> /x")]);
        assert_eq!(other.copy(&[layer], "/up"), pairs(&[("app/pid", "1"), ("l", "-> /x")]));
    }

    #[test]
    fn the_volumes_directory_stays_the_same_one() {
        let world = World::new();
        let layer = world.layer("layer", &[("srv/a", "image"), ("srv/sub/b", "b")]);
        let data = world.root.path().join("data/volumes/vol/_data");
        fs::create_dir_all(&data).unwrap();
        let before = fs::metadata(&data).unwrap().ino();
        assert_eq!(world.copy(&[layer], "/srv"), pairs(&[("a", "image"), ("sub/b", "b")]));
        assert_eq!(fs::metadata(&data).unwrap().ino(), before);
    }

    #[test]
    fn a_move_that_a_crash_interrupted_is_finished() {
        let world = World::new();
        let volume = world.root.path().join("data/volumes/vol");
        fs::create_dir_all(volume.join("_data")).unwrap();
        fs::write(volume.join("_data/moved"), "1").unwrap();
        fs::create_dir_all(volume.join(FILLING).join("sub")).unwrap();
        fs::write(volume.join(FILLING).join("sub/left"), "2").unwrap();
        fs::create_dir_all(volume.join(".copy-c9")).unwrap();
        fs::set_permissions(volume.join(FILLING), fs::Permissions::from_mode(0o1770)).unwrap();
        sweep(&volume).unwrap();
        let mut files = Vec::new();
        list(&volume.join("_data"), "", &mut files);
        assert_eq!(files, pairs(&[("moved", "1"), ("sub/left", "2")]));
        assert_eq!(files::names_in(&volume).unwrap(), ["_data"]);
        assert_eq!(fs::metadata(volume.join("_data")).unwrap().mode() & 0o7777, 0o1770);
    }

    #[test]
    fn a_volume_with_content_is_left_alone() {
        let world = World::new();
        let layer = world.layer("layer", &[("srv/a", "image")]);
        let data = world.root.path().join("data/volumes/vol/_data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("mine"), "mine").unwrap();
        assert_eq!(world.copy(&[layer], "/srv"), pairs(&[("mine", "mine")]));
    }

    #[test]
    fn owner_mode_and_times_come_along() {
        let world = World::new();
        let layer = world.layer("layer", &[("srv/a", "x")]);
        std::os::unix::fs::chown(layer.join("srv"), Some(33), Some(34)).unwrap();
        fs::set_permissions(layer.join("srv"), fs::Permissions::from_mode(0o1770)).unwrap();
        let before = fs::metadata(layer.join("srv/a")).unwrap();
        world.copy(&[layer], "/srv");
        let data = world.root.path().join("data/volumes/vol/_data");
        let dir = fs::metadata(&data).unwrap();
        assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (33, 34, 0o1770));
        assert_eq!(fs::metadata(data.join("a")).unwrap().mtime_nsec(), before.mtime_nsec());
    }
}
