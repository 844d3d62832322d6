//! Puts what is copied in its places of the image, as entries of a layer's tar.
//!
//! In: things to copy, the tree below, a destination. Out: the tar. Folders that are on the way are written as they are
//! below, so that the layer does not change them; a link on the way is followed in the tree below only.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use images::{
    Archive, ArchiveWriter, Entry, EntryKind, FileKind, Found, LayerWriter, Meta, View, join, normal, plain,
};

use super::{Item, Owner};

/// What is copied where.
pub(crate) struct Job {
    pub(crate) items: Vec<Item>,
    /// The image so far.
    pub(crate) below: View,
    /// Absolute; a slash at its end means a folder.
    pub(crate) destination: String,
    /// `None` keeps everybody's files.
    pub(crate) owner: Option<Owner>,
    /// Permission bits for everything that is copied.
    pub(crate) mode: Option<u32>,
}

/// What writes the layer.
pub(crate) fn layer(job: Job) -> LayerWriter {
    Box::new(move |out| {
        let Job { items, below, destination, owner, mode } = job;
        let mut target = Target { below, out: ArchiveWriter::new(out), made: BTreeMap::new(), owner, mode };
        for item in &items {
            target.item(item, &destination)?;
        }
        target.out.finish().map(drop)
    })
}

/// A folder to be made, without a copy of anything. For `WORKDIR`.
pub(crate) fn folder(below: View, path: String) -> LayerWriter {
    Box::new(move |out| {
        let owner = Some(Owner { uid: 0, gid: 0 });
        let mut target =
            Target { below, out: ArchiveWriter::new(out), made: BTreeMap::new(), owner, mode: None };
        let path = target.resolved(path.as_bytes())?;
        target.ensure_folder(&path, false)?;
        target.out.finish().map(drop)
    })
}

struct Target<W> {
    below: View,
    out: ArchiveWriter<W>,
    /// What this layer has by now, by normal path.
    made: BTreeMap<Vec<u8>, EntryKind>,
    owner: Option<Owner>,
    mode: Option<u32>,
}

/// A new folder's time, in seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn error(text: String) -> io::Error {
    io::Error::other(text)
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(b"", |at| &path[..at])
}

fn base_name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(path, |at| &path[at + 1..])
}

impl<W: Write> Target<W> {
    fn item(&mut self, item: &Item, destination: &str) -> io::Result<()> {
        let path = self.resolved(destination.as_bytes())?;
        if item.found.meta.kind == FileKind::Folder {
            if self.kind_at(&path)?.is_some_and(|kind| kind != EntryKind::Folder) {
                return Err(error(format!("cannot copy to non-directory: {destination}")));
            }
            self.ensure_folder(&path, true)?;
            return self.children(item, &item.found, &path);
        }
        if item.unpacks && is_archive(item) {
            self.ensure_folder(&path, true)?;
            return self.unpack(item, &path);
        }
        let is_into = destination.ends_with('/') || self.kind_at(&path)? == Some(EntryKind::Folder);
        let path = if is_into { join(&path, base_name(&item.name)) } else { path };
        if path.is_empty() {
            return Err(error(format!("cannot copy a file to {destination}")));
        }
        self.ensure_folder(parent(&path), true)?;
        self.copy(item, &item.found, &path)
    }

    fn children(&mut self, item: &Item, folder: &Found, to: &[u8]) -> io::Result<()> {
        for name in item.tree.names(folder)? {
            let Some(found) = item.tree.look(folder, &name)? else { continue };
            let path = join(to, &name);
            self.copy(item, &found, &path)?;
            if found.meta.kind == FileKind::Folder {
                self.children(item, &found, &path)?;
            }
        }
        Ok(())
    }

    /// Writes one thing; the folder it lies in is there.
    fn copy(&mut self, item: &Item, found: &Found, path: &[u8]) -> io::Result<()> {
        let mut meta = found.meta;
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        meta.mtime = item.mtime.unwrap_or(meta.mtime);
        let mode = self.mode.or(item.mode);
        if let Some(mode) = mode.filter(|_| meta.kind != FileKind::Symlink) {
            meta.mode = mode;
        }
        let kind = match meta.kind {
            FileKind::File => EntryKind::File,
            FileKind::Folder => EntryKind::Folder,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice => EntryKind::CharDevice,
            FileKind::BlockDevice => EntryKind::BlockDevice,
            // Archives cannot hold them.
            FileKind::Socket => return Ok(()),
        };
        let link = if kind == EntryKind::Symlink { item.tree.link(found)? } else { Vec::new() };
        let xattrs = item.tree.xattrs(found)?;
        let entry = Entry { path: path.to_vec(), link, xattrs, ..plain(kind, &meta) };
        self.made.insert(path.to_vec(), kind);
        match kind {
            EntryKind::File => self.out.file(&entry, meta.size, &mut item.tree.file(found)?),
            _ => self.out.entry(&entry),
        }
    }

    /// What is at a normal path: of this layer, else below.
    fn kind_at(&self, path: &[u8]) -> io::Result<Option<EntryKind>> {
        if let Some(kind) = self.made.get(path) {
            return Ok(Some(*kind));
        }
        let found = self.below.locate(path, false)?.found;
        Ok(found.map(|found| match found.meta.kind {
            FileKind::Folder => EntryKind::Folder,
            FileKind::Symlink => EntryKind::Symlink,
            _ => EntryKind::File,
        }))
    }

    /// The normal path that `path` leads to in the image; what this layer has is no link to be followed.
    fn resolved(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let direct = normal(path).map_err(|because| error(because.to_owned()))?;
        if self.made.contains_key(&direct) {
            return Ok(direct);
        }
        let located = self.below.locate(path, true);
        located
            .map(|located| located.path)
            .map_err(|e| error(format!("{}: {e}", String::from_utf8_lossy(path))))
    }

    /// Makes sure that a folder and all above it are in the layer: as they are below, else new ones.
    fn ensure_folder(&mut self, path: &[u8], with_owner: bool) -> io::Result<()> {
        if path.is_empty() || self.made.get(path) == Some(&EntryKind::Folder) {
            return Ok(());
        }
        self.ensure_folder(parent(path), with_owner)?;
        let below = match self.made.get(path) {
            // This layer replaced it.
            Some(_) => None,
            None => self.below.locate(path, false)?.found,
        };
        let entry = match below {
            Some(found) if found.meta.kind == FileKind::Folder => {
                let xattrs = self.below.xattrs(&found)?;
                Entry { path: path.to_vec(), xattrs, ..plain(EntryKind::Folder, &found.meta) }
            }
            Some(_) => {
                return Err(error(format!("mkdir /{}: not a directory", String::from_utf8_lossy(path))));
            }
            None => Entry { path: path.to_vec(), ..plain(EntryKind::Folder, &self.new_folder(with_owner)) },
        };
        self.made.insert(path.to_vec(), EntryKind::Folder);
        self.out.entry(&entry)
    }

    fn new_folder(&self, with_owner: bool) -> Meta {
        let owner = self.owner.filter(|_| with_owner).unwrap_or(Owner { uid: 0, gid: 0 });
        Meta {
            kind: FileKind::Folder,
            mode: 0o755,
            uid: owner.uid,
            gid: owner.gid,
            size: 0,
            mtime: now(),
            device: (0, 0),
        }
    }

    /// Writes the entries of an archive below `to`.
    fn unpack(&mut self, item: &Item, to: &[u8]) -> io::Result<()> {
        let mut archive = Archive::new(images::decompressed(item.tree.file(&item.found)?)?);
        while let Some(entry) = archive.next_entry()? {
            let path = inside(&entry, &entry.path)?;
            if path.is_empty() {
                continue;
            }
            let full = join(to, &path);
            let folder = self.resolved(parent(&full))?;
            self.ensure_folder(&folder, false)?;
            let full = join(&folder, base_name(&full));
            let link = match entry.kind {
                // A hard link names a file of the archive.
                EntryKind::HardLink => self.linked(&join(to, &inside(&entry, &entry.link)?))?,
                _ => entry.link.clone(),
            };
            self.made.insert(full.clone(), entry.kind);
            let size = archive.content_left();
            let entry = Entry { path: full, link, ..entry };
            match entry.kind {
                EntryKind::File => self.out.file(&entry, size, &mut archive)?,
                _ => self.out.entry(&entry)?,
            }
            if archive.has_content_left() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The place of an entry that was unpacked before.
    fn linked(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let place = join(&self.resolved(parent(path))?, base_name(path));
        match self.made.contains_key(&place) {
            true => Ok(place),
            false => Err(error(format!(
                "invalid hardlink: {} is not in the archive",
                String::from_utf8_lossy(path)
            ))),
        }
    }
}

fn inside(entry: &Entry, path: &[u8]) -> io::Result<Vec<u8>> {
    normal(path).map_err(|because| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("invalid entry {:?}: {because}", String::from_utf8_lossy(&entry.path)),
        )
    })
}

/// Whether it is a tar, in a compression that we can undo, by its first entry. Source: moby, `isArchivePath`.
fn is_archive(item: &Item) -> bool {
    if item.found.meta.kind != FileKind::File || item.found.meta.size == 0 {
        return false;
    }
    let opened = item.tree.file(&item.found).and_then(images::decompressed).map(Archive::new);
    opened.and_then(|mut archive| archive.next_entry()).is_ok_and(|entry| entry.is_some())
}
