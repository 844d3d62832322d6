//! The files of an archive that is being loaded, on disk under their digests until it is known which are layers.
//!
//! In: the archive as it streams in, compressed or not. Out: files by name, as JSON, bytes or blobs. Never interprets
//! what the files say about images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::archive::{Archive, Kind};
use crate::codec;
use crate::disk::Temp;
use crate::errors::{FileError, LoadError};
use crate::ids::{Digest, Hasher};
use crate::index::Descriptor;
use crate::shelf::Shelf;
use crate::spool::StreamReader;
use crate::unpack::normal;

/// Most files an archive may hold. Chosen: a hundred images of a hundred layers, with room.
const MAX_FILES: usize = 100_000;
/// Longest JSON file that is read into memory.
const MAX_JSON: u64 = 16 << 20;
const COPY_BUFFER: usize = 128 * 1024;

/// The archive's files, in temporary files by their normal names.
pub(crate) struct Spooled {
    shelf: Arc<Shelf>,
    files: BTreeMap<String, Stored>,
    /// Links of the legacy layout, which names the same layer many times.
    links: BTreeMap<String, String>,
}

struct Stored {
    /// `None` once it is a blob.
    temp: Option<Temp>,
    digest: Digest,
    size: u64,
    encoding: codec::Encoding,
}

/// Writes every file of the archive into `tmp/`, with its digest. Blocks on the stream and the disk.
pub(crate) fn spool(shelf: Arc<Shelf>, reader: StreamReader) -> Result<Spooled, LoadError> {
    let (_, plain) = codec::decode(reader).map_err(LoadError::Archive)?;
    let mut archive = Archive::new(plain);
    let mut spooled = Spooled { shelf, files: BTreeMap::new(), links: BTreeMap::new() };
    let mut buffer = vec![0; COPY_BUFFER];
    while let Some(entry) = archive.next_entry().map_err(LoadError::Archive)? {
        let name = |bytes: &[u8]| {
            let path = normal(bytes).ok().and_then(|path| String::from_utf8(path).ok());
            path.ok_or_else(|| LoadError::Invalid(format!("invalid name in archive: {}", entry.display())))
        };
        let path = name(&entry.path)?;
        if spooled.files.len() + spooled.links.len() >= MAX_FILES {
            return Err(LoadError::Invalid("archive has too many files".to_owned()));
        }
        match entry.kind {
            Kind::File => {
                let stored = store_file(&spooled.shelf, &mut archive, &mut buffer)?;
                spooled.files.insert(path, stored);
            }
            Kind::HardLink => {
                let target = name(&entry.link)?;
                spooled.links.insert(path, target);
            }
            Kind::Symlink => {
                let mut target = path.rsplit_once('/').map_or("", |(dir, _)| dir).as_bytes().to_vec();
                target.push(b'/');
                target.extend(&entry.link);
                let target = name(&target)?;
                spooled.links.insert(path, target);
            }
            _ => {}
        }
    }
    archive.drain().map_err(LoadError::Archive)?;
    Ok(spooled)
}

fn store_file(
    shelf: &Shelf,
    archive: &mut Archive<impl Read>,
    buffer: &mut [u8],
) -> Result<Stored, LoadError> {
    let temp = shelf.disk.temp("load");
    let mut file = File::create(temp.path()).map_err(FileError::at("open", temp.path()))?;
    let (mut hasher, mut size, mut head) = (Hasher::default(), 0, Vec::new());
    loop {
        let n = match archive.read(buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(LoadError::Archive(e)),
        };
        if head.len() < codec::HEAD {
            head.extend_from_slice(&buffer[..n.min(codec::HEAD)]);
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
        file.write_all(&buffer[..n]).map_err(FileError::at("write", temp.path()))?;
    }
    if archive.has_content_left() {
        return Err(LoadError::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    // A file of another compression is no layer; whether anything needs it shows later.
    let encoding = codec::Encoding::of(&head).unwrap_or(codec::Encoding::Plain);
    Ok(Stored { temp: Some(temp), digest: hasher.finish(), size, encoding })
}

impl Spooled {
    fn resolve<'a>(&'a self, mut name: &'a str) -> Option<&'a str> {
        // Source: Linux follows at most 40 links.
        for _ in 0..40 {
            match self.links.get(name) {
                Some(target) => name = target,
                None => return self.files.contains_key(name).then_some(name),
            }
        }
        None
    }

    fn file(&self, name: &str) -> Result<&Stored, LoadError> {
        let found = self.resolve(name).and_then(|name| self.files.get(name));
        found.ok_or_else(|| LoadError::Invalid(format!("archive lacks `{name}`")))
    }

    /// Whether the archive has a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.resolve(name).is_some()
    }

    /// The digest of a file's content.
    pub(crate) fn digest(&self, name: &str) -> Result<Digest, LoadError> {
        self.file(name).map(|stored| stored.digest.clone())
    }

    /// A small file in full.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let stored = self.file(name)?;
        if stored.size > MAX_JSON {
            return Err(LoadError::Invalid(format!("`{name}` of the archive is too long")));
        }
        let path = match &stored.temp {
            Some(temp) => temp.path().to_owned(),
            None => self.shelf.disk.blob(&stored.digest),
        };
        Ok(std::fs::read(&path).map_err(FileError::at("read", path))?)
    }

    /// A small file as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes).map_err(|source| LoadError::Parse { file: name.to_owned(), source })
    }

    /// Moves a file into the store as a layer's blob. The caller has pinned its digest.
    pub(crate) fn take_blob(&mut self, name: &str) -> Result<Descriptor, LoadError> {
        let name = self.resolve(name).unwrap_or(name).to_owned();
        let stored = self.files.get_mut(&name);
        let stored = stored.ok_or_else(|| LoadError::Invalid(format!("archive lacks `{name}`")))?;
        let disk = &self.shelf.disk;
        if let Some(temp) = stored.temp.take()
            && !disk.has_blob(&stored.digest)
        {
            temp.put(&disk.blob(&stored.digest))?;
        }
        Ok(Descriptor {
            media_type: stored.encoding.layer_media_type().to_owned(),
            digest: stored.digest.clone(),
            size: stored.size,
        })
    }
}
