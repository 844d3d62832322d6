//! Writes tar archives entry by entry: ustar, with PAX records for what does not fit a header.
//!
//! In: entries as [`crate::archive`] reads them, and their content. Out: bytes that are the same for the same entries.
//! Never reads the file system. Times are whole seconds: fractions would make layers of the same files differ between
//! file systems. Source: moby, `pkg/archive`, `FileInfoHeaderNoLookups`.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::archive::{Entry, Kind};

/// Bytes of a block. Source: POSIX.1-2017, `pax`.
const BLOCK: u64 = 512;
/// Longest name and link target of a header.
const MAX_NAME: usize = 100;
/// PAX key prefix of an extended attribute. Source: Go, `archive/tar`, `paxSchilyXattr`.
const XATTR: &str = "SCHILY.xattr.";

/// An archive being written. Nothing is complete before [`ArchiveWriter::finish`].
pub struct ArchiveWriter<W> {
    out: W,
}

impl<W: Write> ArchiveWriter<W> {
    /// Writes to the archive's beginning.
    pub fn new(out: W) -> ArchiveWriter<W> {
        ArchiveWriter { out }
    }

    /// An entry without content: anything but a file.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(entry, 0)
    }

    /// A file of exactly `size` bytes; a `content` that ends early is filled up with zeros, since the header is out.
    pub fn file(&mut self, entry: &Entry, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.header(entry, size)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        io::copy(&mut io::repeat(0).take(size - copied + padding), &mut self.out).map(drop)
    }

    /// The end mark.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        let mut path = entry.path.clone();
        if entry.kind == Kind::Folder && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = Vec::new();
        if path.len() > MAX_NAME {
            record(&mut records, "path", &path);
        }
        if entry.link.len() > MAX_NAME {
            record(&mut records, "linkpath", &entry.link);
        }
        for (key, value) in &entry.xattrs {
            record(&mut records, &format!("{XATTR}{}", String::from_utf8_lossy(key)), value);
        }
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            put(&mut header.as_old_mut().name, b"PaxHeaders.0/x");
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            header.set_cksum();
            records.resize(records.len().next_multiple_of(BLOCK as usize), 0);
            self.out.write_all(header.as_bytes())?;
            self.out.write_all(&records)?;
        }
        self.out.write_all(fields(entry, &path, size)?.as_bytes())
    }
}

fn fields(entry: &Entry, path: &[u8], size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    put(&mut header.as_old_mut().name, path);
    put(&mut header.as_old_mut().linkname, &entry.link);
    header.set_entry_type(match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::Folder => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::HardLink => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
    });
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or_default());
    header.set_size(size);
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    header.set_cksum();
    Ok(header)
}

/// As much of `value` as fits; the whole stands in a PAX record then.
fn put(field: &mut [u8; MAX_NAME], value: &[u8]) {
    let len = value.len().min(MAX_NAME);
    field[..len].copy_from_slice(&value[..len]);
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + rest.to_string().len();
    if rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    records.extend(format!("{len} {key}=").into_bytes());
    records.extend(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;

    fn entry(kind: Kind, path: &[u8], link: &[u8]) -> Entry {
        Entry {
            kind,
            path: path.to_vec(),
            link: link.to_vec(),
            mode: 0o4755,
            uid: 5_000_000,
            gid: 7,
            mtime: (1_700_000_000, 0),
            device: (1, 3),
            xattrs: vec![(b"user.x".to_vec(), b"a\n\0b".to_vec())],
        }
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let long = [b'n'; 300];
        let entries = [
            entry(Kind::Folder, b"d/", b""),
            entry(Kind::File, &long, b""),
            entry(Kind::Symlink, b"d/l", &long),
            entry(Kind::HardLink, b"d/h", b"d/f"),
            entry(Kind::CharDevice, b"d/c", b""),
        ];
        let mut writer = ArchiveWriter::new(Vec::new());
        for entry in &entries {
            match entry.kind {
                Kind::File => writer.file(entry, 5, &mut &b"hel"[..]).unwrap(),
                _ => writer.entry(entry).unwrap(),
            }
        }
        let bytes = writer.finish().unwrap();
        let mut archive = Archive::new(&bytes[..]);
        for wrote in &entries {
            let read = archive.next_entry().unwrap().unwrap();
            assert_eq!((read.kind, &read.path, &read.link), (wrote.kind, &wrote.path, &wrote.link));
            assert_eq!((read.mode, read.uid, read.gid), (wrote.mode, wrote.uid, wrote.gid));
            assert_eq!((read.mtime, &read.xattrs), (wrote.mtime, &wrote.xattrs));
            if read.kind == Kind::File {
                let mut content = Vec::new();
                archive.read_to_end(&mut content).unwrap();
                assert_eq!(content, b"hel\0\0", "a file that became shorter is filled up");
            }
        }
        assert!(archive.next_entry().unwrap().is_none());
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for value in [1, 2, 5, 85, 86, 87, 88, 89, 90, 91, 985, 990, 995, 1000] {
            let mut records = Vec::new();
            record(&mut records, "path", &vec![b'v'; value]);
            let said = String::from_utf8_lossy(&records).split(' ').next().unwrap().parse::<usize>().unwrap();
            assert_eq!(said, records.len(), "{value}");
        }
    }
}
