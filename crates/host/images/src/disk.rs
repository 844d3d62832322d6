//! The folders of the store: blobs by digest, unpacked layers, unfinished work.
//!
//! In: the root. Out: paths, and temporary files that vanish unless they are put in place. Never decides what is
//! still needed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errors::FileError;
use crate::ids::{Digest, Hasher};

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// Numbers temporary files and layer folders; the next one that is free.
    next: AtomicU64,
}

/// A file or folder in `tmp/` that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Temp {
    path: PathBuf,
}

impl Temp {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its final place.
    pub(crate) fn put(self, to: &Path) -> Result<(), FileError> {
        fs::rename(&self.path, to).map_err(FileError::at("rename", to))?;
        // Nothing is left to remove under the old name.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                // The next start sweeps it.
                tracing::warn!(path = %self.path.display(), error = %e, "temporary file left behind");
            }
            _ => {}
        }
    }
}

impl Disk {
    /// Makes the folders and empties `tmp/`.
    pub(crate) fn open(root: &Path) -> Result<Disk, FileError> {
        for folder in ["", "blobs", "blobs/sha256", "l", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(FileError::at("mkdir", &path))?;
        }
        // Layers hold setuid files of every image: only root may look in.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(FileError::at("chmod", root))?;
        let disk = Disk { root: root.to_owned(), next: AtomicU64::new(0) };
        for name in disk.names_in("tmp")? {
            drop(Temp { path: root.join("tmp").join(name) });
        }
        let highest = disk.names_in("l")?.iter().filter_map(|name| from_base36(name)).max();
        disk.next.store(highest.map_or(0, |n| n + 1), Ordering::Relaxed);
        Ok(disk)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there in full: blobs are put in place only when complete.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    pub(crate) fn layer(&self, folder: &str) -> PathBuf {
        self.root.join("l").join(folder)
    }

    /// A short name no layer has or had since the start.
    pub(crate) fn new_layer_name(&self) -> String {
        to_base36(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A name in `tmp/` that nothing has.
    pub(crate) fn temp(&self, what: &str) -> Temp {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Temp { path: self.root.join("tmp").join(format!("{what}-{n}")) }
    }

    /// A fresh empty folder in `tmp/` with the mode of a root directory.
    pub(crate) fn temp_folder(&self, what: &str) -> Result<Temp, FileError> {
        use std::os::unix::fs::PermissionsExt;
        let temp = self.temp(what);
        fs::create_dir(temp.path()).map_err(FileError::at("mkdir", temp.path()))?;
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755))
            .map_err(FileError::at("chmod", temp.path()))?;
        Ok(temp)
    }

    /// Keeps small content under its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest, FileError> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            let temp = self.temp("blob");
            let mut file = File::create(temp.path()).map_err(FileError::at("open", temp.path()))?;
            file.write_all(bytes).map_err(FileError::at("write", temp.path()))?;
            temp.put(&self.blob(&digest))?;
        }
        Ok(digest)
    }

    /// Reads a small blob and checks that it still is what its name says.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, FileError> {
        let path = self.blob(digest);
        let bytes = fs::read(&path).map_err(FileError::at("read", &path))?;
        if Digest::of(&bytes) != *digest {
            let damaged = io::Error::new(io::ErrorKind::InvalidData, "content does not match its digest");
            return Err(FileError::at("read", path)(damaged));
        }
        Ok(bytes)
    }

    /// Moves a layer's folder out of sight at once; dropping the result deletes it.
    pub(crate) fn take_layer(&self, folder: &str) -> Option<Temp> {
        let temp = self.temp("removed");
        match fs::rename(self.layer(folder), temp.path()) {
            Ok(()) => Some(temp),
            Err(e) => {
                tracing::warn!(layer = folder, error = %e, "layer not removed");
                None
            }
        }
    }

    /// Deletes every blob that is not in `keep`.
    pub(crate) fn keep_blobs(&self, keep: &BTreeSet<Digest>) -> Result<(), FileError> {
        let keep: BTreeSet<&str> = keep.iter().map(Digest::hex).collect();
        for name in self.names_in("blobs/sha256")? {
            if !keep.contains(name.as_str()) {
                drop(Temp { path: self.root.join("blobs/sha256").join(name) });
            }
        }
        Ok(())
    }

    /// Deletes every layer folder that is not in `keep`.
    pub(crate) fn keep_layers(&self, keep: &BTreeSet<&str>) -> Result<(), FileError> {
        for name in self.names_in("l")? {
            if !keep.contains(name.as_str()) {
                drop(Temp { path: self.layer(&name) });
            }
        }
        Ok(())
    }

    /// Brings everything written so far to the disk itself, so that the index never outlives its layers.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let folder = File::open(&self.root).map_err(FileError::at("open", &self.root))?;
        rustix::fs::syncfs(&folder).map_err(|e| FileError::at("sync", &self.root)(e.into()))
    }

    fn names_in(&self, folder: &str) -> Result<Vec<String>, FileError> {
        let path = self.root.join(folder);
        let names = fs::read_dir(&path).and_then(|entries| {
            entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect()
        });
        names.map_err(FileError::at("read", path))
    }
}

/// Digits of a layer's folder name: as short as possible, since 120 of them must fit into one page of mount options.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn to_base36(mut n: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(DIGITS[(n % 36) as usize]));
        n /= 36;
        if n == 0 {
            return digits.iter().rev().collect();
        }
    }
}

fn from_base36(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 36).ok()
}

/// A reader that hashes and counts what passes.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Hashing<R> {
        Hashing { inner, hasher: Hasher::default(), bytes: 0 }
    }

    /// The digest and number of all bytes read so far.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base36_is_reversible_and_short() {
        for n in [0, 1, 35, 36, 1295, 46_655, u64::MAX] {
            assert_eq!(from_base36(&to_base36(n)), Some(n));
        }
        assert_eq!(to_base36(46_655), "zzz");
    }

    #[test]
    fn what_was_not_put_in_place_is_gone_after_an_open() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("tmp/layer-9/etc")).unwrap();
        fs::write(dir.path().join("tmp/blob-3"), b"half").unwrap();
        let digest = disk.put_blob(b"whole").unwrap();
        drop(disk);
        let disk = Disk::open(dir.path()).unwrap();
        assert!(disk.names_in("tmp").unwrap().is_empty());
        assert_eq!(disk.read_blob(&digest).unwrap(), b"whole");
        fs::write(disk.blob(&digest), b"wholf").unwrap();
        assert!(disk.read_blob(&digest).unwrap_err().to_string().contains("digest"));
    }
}
