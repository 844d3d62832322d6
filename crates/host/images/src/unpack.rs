//! Unpacks one layer into a folder as overlayfs wants it: whiteouts as 0:0 devices, opaque folders by attribute.
//!
//! In: the plain tar of a layer and an empty folder. Out: the files, with owners, modes, times and attributes, and
//! how many bytes they hold. Never follows a link out of the folder, whatever the archive says, and never depends
//! on the process's umask.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};

use crate::archive::{Archive, Entry, Kind};
use crate::errors::{FileError, LayerError};
use crate::place::{Place, Root};

/// Prefix of a whiteout. Source: OCI image specification, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything below its folder. Source: OCI image specification, "Opaque Whiteout".
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are bookkeeping of aufs. Source: moby, `WhiteoutMetaPrefix`.
const AUFS: &[u8] = b".wh..wh.";
/// Chosen: an order of magnitude beyond the largest images, and folders' times still fit in memory.
const MAX_ENTRIES: u64 = 5_000_000;
/// Deepest path. Chosen: beyond any real tree, and far below the number of folders a process may hold open.
const MAX_DEPTH: usize = 256;
/// Chosen: large enough that system calls do not dominate.
const COPY_BUFFER: usize = 128 * 1024;

/// Unpacks `input` into the existing empty folder `into`; returns the bytes of all files' content.
///
/// Reads `input` to its end, so that a reader that counts or hashes has seen everything.
pub(crate) fn unpack(input: impl Read, into: &Path) -> Result<u64, LayerError> {
    unpack_by(&Rules::Layer, Root::open(into)?, input)
}

/// Unpacks `input` below `root` by `rules`; see [`unpack`].
pub(crate) fn unpack_by(rules: &Rules, root: Root, input: impl Read) -> Result<u64, LayerError> {
    let mut archive = Archive::new(input);
    let mut unpacker =
        Unpacker { rules, root, folder_times: BTreeMap::new(), buffer: vec![0; COPY_BUFFER], bytes: 0 };
    let mut entries = 0;
    while let Some(mut entry) = archive.next_entry().map_err(LayerError::Archive)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(LayerError::Entry { path: entry.display(), because: "layer has too many entries" });
        }
        unpacker.entry(&mut archive, &mut entry)?;
    }
    archive.drain().map_err(LayerError::Archive)?;
    unpacker.set_folder_times()?;
    Ok(unpacker.bytes)
}

/// What an archive means for the tree that it is unpacked to.
pub(crate) enum Rules {
    /// The tree is an empty folder, and the archive a layer with whiteouts.
    Layer,
    /// The tree is somebody's, and the archive is put over a folder in it; see [`crate::extract`].
    Over {
        /// The folder as a normal path; it exists.
        base: Vec<u8>,
        /// Whether a folder may take the place of something else, and the other way round.
        may_change_kind: bool,
        /// User and group of everything that is made; `None` takes the archive's.
        owner: Option<(u32, u32)>,
    },
}

struct Unpacker<'a> {
    rules: &'a Rules,
    root: Root,
    /// A folder's time changes with each file made in it, hence is set at the very end.
    folder_times: BTreeMap<Vec<u8>, (i64, u32)>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: &mut Entry) -> Result<(), LayerError> {
        let path = normal(&entry.path).map_err(|because| bad(entry, because))?;
        if let Rules::Over { base, may_change_kind, owner } = self.rules {
            if path.is_empty() {
                // Source: moby, `archive.Unpack`: the folder that is there stays as it is.
                return Ok(());
            }
            (entry.uid, entry.gid) = owner.map_or((entry.uid, entry.gid), |(u, g)| (u.into(), g.into()));
            let path = below(base, &path);
            let (parent, name) = split(&path).expect("a path below another is not empty");
            let place = self.root.place(parent, name)?;
            if !may_change_kind {
                check_kind(&place, entry, &path, base)?;
            }
            return self.make(archive, entry, &place, &path);
        }
        let Some((parent, name)) = split(&path) else {
            return self.root_entry(entry);
        };
        if name == OPAQUE {
            let parent = self.root.folder(parent)?;
            return Ok(parent.set_opaque()?);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err(bad(entry, "whiteout without a name"));
            }
            let place = self.root.place(parent, hidden)?;
            return self.whiteout(&place, entry);
        }
        let place = self.root.place(parent, name)?;
        self.make(archive, entry, &place, &path)
    }

    /// Makes what the entry is, at `place`, which is at `path`.
    fn make<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        place: &Place,
        path: &[u8],
    ) -> Result<(), LayerError> {
        match entry.kind {
            Kind::File => self.file(archive, entry, place),
            Kind::Folder => self.folder(entry, place, path.to_vec()),
            Kind::HardLink => self.hard_link(entry, place),
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(bad(entry, "link without a target"));
                }
                self.root.forget();
                place.make_fresh("symlink", |dir, name| rustix::fs::symlinkat(&entry.link[..], dir, name))?;
                self.attributes(entry, place)
            }
            Kind::Fifo => self.node(entry, place, FileType::Fifo),
            Kind::CharDevice => self.node(entry, place, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(entry, place, FileType::BlockDevice),
        }
    }

    /// `./` gives the root folder its attributes.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Folder {
            return Err(bad(entry, "the root must be a folder"));
        }
        self.root.folder(b"")?.set_attributes(entry)?;
        self.folder_times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    /// A whiteout hides what lies in lower layers only; an entry of this layer under the same name stays.
    fn whiteout(&mut self, place: &Place, entry: &Entry) -> Result<(), LayerError> {
        let made = rustix::fs::mknodat(
            place.dir(),
            place.name(),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0),
            rustix::fs::makedev(0, 0),
        );
        match made {
            Ok(()) => Ok(place.set_owner(entry)?),
            Err(rustix::io::Errno::EXIST) => {
                if place.kind()? == Some(FileType::Directory) {
                    place.open_folder()?.set_opaque()?;
                }
                Ok(())
            }
            Err(e) => Err(place.error("mknod", e).into()),
        }
    }

    fn file<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        place: &Place,
    ) -> Result<(), LayerError> {
        let file = place.make_file()?;
        loop {
            let n = match archive.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(LayerError::Archive(e)),
            };
            write_all(&file, &self.buffer[..n]).map_err(|e| place.error("write", e))?;
            self.bytes += n as u64;
        }
        if archive.has_content_left() {
            return Err(LayerError::Archive(std::io::ErrorKind::UnexpectedEof.into()));
        }
        place.set_attributes_of(file.as_fd(), entry)?;
        Ok(())
    }

    fn folder(&mut self, entry: &Entry, place: &Place, path: Vec<u8>) -> Result<(), LayerError> {
        match place.kind()? {
            Some(FileType::Directory) => {}
            found => {
                let hid_lower = found.is_some() && place.is_whiteout()?;
                self.root.forget();
                place.make_fresh("mkdir", |dir, name| rustix::fs::mkdirat(dir, name, Mode::RWXU))?;
                if hid_lower {
                    place.open_folder()?.set_opaque()?;
                }
            }
        }
        place.open_folder()?.set_attributes(entry)?;
        self.folder_times.insert(path, entry.mtime);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place) -> Result<(), LayerError> {
        let target = normal(&entry.link).map_err(|because| bad(entry, because))?;
        let target = match self.rules {
            Rules::Over { base, .. } if !target.is_empty() => below(base, &target),
            _ => target,
        };
        let Some((parent, name)) = split(&target) else {
            return Err(bad(entry, "hard link to the root"));
        };
        let target = self.root.existing(parent, name)?;
        if target.is_same_as(place) {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW the link itself is linked, not what it points to.
        place.make_fresh("link", |dir, name| {
            rustix::fs::linkat(target.dir(), target.name(), dir, name, AtFlags::empty())
        })?;
        self.root.forget();
        Ok(())
    }

    fn node(&mut self, entry: &Entry, place: &Place, kind: FileType) -> Result<(), LayerError> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        place.make_fresh("mknod", |dir, name| {
            rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
        })?;
        self.attributes(entry, place)
    }

    fn attributes(&mut self, entry: &Entry, place: &Place) -> Result<(), LayerError> {
        Ok(place.set_attributes(entry)?)
    }

    fn set_folder_times(&mut self) -> Result<(), FileError> {
        for (path, mtime) in std::mem::take(&mut self.folder_times) {
            // A later entry may have replaced the folder; then its time is of no interest.
            if let Some(folder) = self.root.folder_if_there(&path)? {
                folder.set_time(mtime)?;
            }
        }
        Ok(())
    }
}

/// Refuses what would replace a folder by something else, or something else by a folder.
/// Source of the words: moby, `archive.Unpack`.
fn check_kind(place: &Place, entry: &Entry, path: &[u8], base: &[u8]) -> Result<(), LayerError> {
    let Some(found) = place.kind()? else { return Ok(()) };
    let (was_folder, is_folder) = (found == FileType::Directory, entry.kind == Kind::Folder);
    if was_folder == is_folder {
        return Ok(());
    }
    let show = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
    Err(LayerError::ChangesKind { path: show(path), base: show(base), was_folder })
}

/// `path` below the folder `base`, both normal.
fn below(base: &[u8], path: &[u8]) -> Vec<u8> {
    if base.is_empty() { path.to_vec() } else { [base, b"/", path].concat() }
}

fn bad(entry: &Entry, because: &'static str) -> LayerError {
    LayerError::Entry { path: entry.display(), because }
}

fn write_all(file: impl AsFd, mut data: &[u8]) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(&file, data) {
            Ok(n) => data = &data[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Removes `.`, `..`, leading and doubled slashes without looking at the file system, as Go's `filepath.Clean`.
/// The root is the empty path.
///
/// # Errors
/// Why the path is none for a layer: it leads out, holds a zero byte or is too deep.
pub fn normal(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or("path leads out of the layer")?),
            _ if part.contains(&0) => return Err("path holds a zero byte"),
            _ if parts.len() == MAX_DEPTH => return Err("path is too deep"),
            _ => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Splits a normal path into folder and name; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
