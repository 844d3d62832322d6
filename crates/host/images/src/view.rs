//! Reads the layers of an image as overlayfs would show them, without a mount that a crash could leave behind.
//!
//! In: folders of layers, top first, which nobody changes meanwhile, and paths. Out: what is at a path, names in a folder,
//! open files. Symbolic links are followed within the tree only; an absolute one begins at its root.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Source: Linux, `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
const OPAQUE: &str = "trusted.overlay.opaque";
/// How many symbolic links a path may lead through. Source: Linux, `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;
/// Longest extended attribute that is read. Source: Linux, `XATTR_SIZE_MAX`.
const MAX_XATTR: usize = 64 * 1024;

/// Layers over one another.
pub struct View {
    /// Top first.
    layers: Vec<OwnedFd>,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub struct Located {
    /// The path without links and dots, relative to the root; empty is the root. What is not there is part of it, too.
    pub path: Vec<u8>,
    /// What is there.
    pub found: Option<Found>,
}

/// A file, folder, link or node in a view.
#[derive(Clone, Debug)]
pub struct Found {
    /// The normal path.
    pub path: Vec<u8>,
    /// Kind, owner, mode, size and time.
    pub meta: Meta,
    /// The layers that show it: one, or those of a merged folder, top first.
    layers: Vec<usize>,
}

/// Attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Major and minor number of a node.
    pub device: (u32, u32),
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket, which no archive can hold.
    Socket,
}

impl Meta {
    /// From the kernel's structure.
    pub(crate) fn of(stat: &Stat) -> Meta {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FileKind::Folder,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::File,
        };
        Meta {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime: stat.st_mtime,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }

    /// Whether it says that a file of a lower layer is gone.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.device == (0, 0)
    }
}

impl View {
    /// Opens the layers, top first. None is an empty tree.
    pub fn open(layers: &[PathBuf]) -> io::Result<View> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = layers.iter().map(|layer| rustix::fs::open(layer, flags, Mode::empty()));
        Ok(View { layers: opened.collect::<Result<_, _>>()? })
    }

    /// Where `path` leads; its last part is followed if `follows_last`.
    pub fn locate(&self, path: &[u8], follows_last: bool) -> io::Result<Located> {
        let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
        let mut at = vec![self.root()?];
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                at.truncate((at.len() - 1).max(1));
                continue;
            }
            let here = at.last().expect("the root is never taken off");
            let found = self.look(here, &part)?;
            let is_last = todo.is_empty();
            match found {
                Some(link) if link.meta.kind == FileKind::Symlink && (!is_last || follows_last) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = self.link(&link)?;
                    if target.starts_with(b"/") {
                        at.truncate(1);
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Some(found) if found.meta.kind == FileKind::Folder => at.push(found),
                Some(found) if is_last => {
                    return Ok(Located { path: found.path.clone(), found: Some(found) });
                }
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => return Ok(Located { path: missing(&here.path, part, todo), found: None }),
            }
        }
        let found = at.pop().expect("the root is never taken off");
        Ok(Located { path: found.path.clone(), found: Some(found) })
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &Found) -> io::Result<Vec<Vec<u8>>> {
        let (mut names, mut hidden) = (BTreeSet::new(), BTreeSet::new());
        for layer in &folder.layers {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(&self.layers[*layer], dot(&folder.path), flags, Mode::empty())?;
            let mut gone = Vec::new();
            for entry in rustix::fs::Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || hidden.contains(name) {
                    continue;
                }
                let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if Meta::of(&stat).is_whiteout() {
                    gone.push(name.to_vec());
                } else {
                    names.insert(name.to_vec());
                }
            }
            hidden.extend(gone.into_iter().filter(|name| !names.contains(name)));
        }
        Ok(names.into_iter().collect())
    }

    /// What is called `name` in a folder; links are not followed.
    pub fn look(&self, folder: &Found, name: &[u8]) -> io::Result<Option<Found>> {
        let path = join(&folder.path, name);
        let mut found: Option<Found> = None;
        for layer in &folder.layers {
            let stat = match rustix::fs::statat(&self.layers[*layer], &path[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let meta = Meta::of(&stat);
            if meta.kind != FileKind::Folder {
                // What lies below a file is hidden by it, and a file below a folder by the folder.
                if found.is_none() && !meta.is_whiteout() {
                    found = Some(Found { path: path.clone(), meta, layers: vec![*layer] });
                }
                break;
            }
            found
                .get_or_insert_with(|| Found { path: path.clone(), meta, layers: Vec::new() })
                .layers
                .push(*layer);
            if self.is_opaque(*layer, &path)? {
                break;
            }
        }
        Ok(found)
    }

    /// The root folder.
    pub fn root(&self) -> io::Result<Found> {
        let meta = match self.layers.first() {
            Some(top) => Meta::of(&rustix::fs::fstat(top)?),
            None => Meta {
                kind: FileKind::Folder,
                mode: 0o755,
                uid: 0,
                gid: 0,
                size: 0,
                mtime: 0,
                device: (0, 0),
            },
        };
        Ok(Found { path: Vec::new(), meta, layers: (0..self.layers.len()).collect() })
    }

    /// Opens a regular file for reading.
    pub fn file(&self, found: &Found) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(self.layer(found)?, &found.path[..], flags, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Where a symbolic link points.
    pub fn link(&self, found: &Found) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.layer(found)?, &found.path[..], Vec::new())?.into_bytes())
    }

    /// Attributes that belong into an archive: capabilities and those of users.
    pub fn xattrs(&self, found: &Found) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if found.meta.kind == FileKind::Symlink {
            return Ok(Vec::new());
        }
        xattrs(&self.proc_path(self.layer(found)?, &found.path))
    }

    fn layer(&self, found: &Found) -> io::Result<&OwnedFd> {
        let layer = found.layers.first().and_then(|layer| self.layers.get(*layer));
        layer.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_opaque(&self, layer: usize, path: &[u8]) -> io::Result<bool> {
        let mut value = [0; 1];
        let path = self.proc_path(&self.layers[layer], path);
        match rustix::fs::lgetxattr(&path[..], OPAQUE, &mut value[..]) {
            Ok(len) => Ok(len == 1 && value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn proc_path(&self, layer: &OwnedFd, path: &[u8]) -> Vec<u8> {
        let mut full = format!("/proc/self/fd/{}/", layer.as_raw_fd()).into_bytes();
        full.extend(path);
        full
    }
}

/// The attributes of the file at `path` that belong into an archive; a last link is not followed.
fn xattrs(path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; MAX_XATTR];
    let listed = rustix::fs::llistxattr(path, &mut names[..]);
    wanted(listed, &names, |name, value| rustix::fs::lgetxattr(path, name, value))
}

/// As [`View::xattrs`], of an open file.
pub(crate) fn xattrs_of(fd: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; MAX_XATTR];
    let listed = rustix::fs::flistxattr(fd, &mut names[..]);
    wanted(listed, &names, |name, value| rustix::fs::fgetxattr(fd, name, value))
}

fn wanted(
    listed: Result<usize, Errno>,
    names: &[u8],
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let len = match listed {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names[..len].split(|b| *b == 0) {
        // Others belong to this machine or to overlayfs. Source: moby, `pkg/archive`, `ReadSecurityXattrToTarHeader`.
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; MAX_XATTR];
            let len = get(name, &mut value)?;
            value.truncate(len);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

fn dot(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// `name` below `folder`, both normal.
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    if name.is_empty() {
        return folder.to_vec();
    }
    [folder, b"/", name].concat()
}

/// The rest of a path whose beginning is not there, without looking any further.
fn missing(folder: &[u8], part: Vec<u8>, todo: VecDeque<Vec<u8>>) -> Vec<u8> {
    let mut path: Vec<Vec<u8>> = parts(folder).collect();
    for part in std::iter::once(part).chain(todo) {
        if part == b".." {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path.join(&b'/')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two layers with links; the upper one hides a file and a folder's content.
    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let (top, low) = (dir.path().join("top"), dir.path().join("low"));
        for folder in ["low/etc", "low/old", "low/usr/bin", "top/etc", "top/old"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(low.join("etc/a"), "low").unwrap();
        std::fs::write(low.join("etc/gone"), "low").unwrap();
        std::fs::write(low.join("old/x"), "low").unwrap();
        std::fs::write(top.join("etc/a"), "top").unwrap();
        std::fs::write(dir.path().join("secret"), "out").unwrap();
        symlink("usr/bin", low.join("bin")).unwrap();
        symlink("../../secret", low.join("etc/out")).unwrap();
        symlink("/etc/loop", low.join("etc/loop")).unwrap();
        let whiteout = rustix::fs::mknodat(
            rustix::fs::CWD,
            top.join("etc/gone"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        );
        whiteout.expect("tests run as root");
        let opaque = rustix::fs::setxattr(top.join("old"), OPAQUE, b"y", rustix::fs::XattrFlags::empty());
        opaque.expect("tests run as root");
        (dir, vec![top, low])
    }

    fn check(view: &View, path: &str, expect: (&str, bool)) {
        let located = view.locate(path.as_bytes(), true).unwrap();
        assert_eq!(
            (String::from_utf8_lossy(&located.path).as_ref(), located.found.is_some()),
            expect,
            "{path}"
        );
    }

    #[test]
    fn paths_lead_where_an_overlay_would_lead_them() {
        let (_dir, layers) = layers();
        let view = View::open(&layers).unwrap();
        check(&view, "/etc/a", ("etc/a", true));
        check(&view, "/etc/gone", ("etc/gone", false));
        check(&view, "/old/x", ("old/x", false));
        check(&view, "/bin/new/x", ("usr/bin/new/x", false));
        check(&view, "/bin/../lib", ("usr/lib", false));
        check(&view, "../../..", ("", true));
        check(&view, "/", ("", true));
        assert_eq!(view.locate(b"/etc/a/b", true).unwrap_err().raw_os_error(), Some(libc_notdir()));
        assert!(view.locate(b"/etc/loop", true).is_err(), "a link to itself ends");
        let etc = view.locate(b"etc", true).unwrap().found.unwrap();
        assert_eq!(view.names(&etc).unwrap(), [b"a".to_vec(), b"loop".to_vec(), b"out".to_vec()]);
    }

    fn libc_notdir() -> i32 {
        Errno::NOTDIR.raw_os_error()
    }

    #[test]
    fn no_link_leads_out() {
        let (_dir, layers) = layers();
        let view = View::open(&layers).unwrap();
        check(&view, "/etc/out", ("secret", false));
    }

    #[test]
    fn the_top_layer_wins() {
        let (_dir, layers) = layers();
        let view = View::open(&layers).unwrap();
        let found = view.locate(b"etc/a", true).unwrap().found.unwrap();
        assert_eq!(io::read_to_string(view.file(&found).unwrap()).unwrap(), "top");
    }
}
