//! Reads tar archives entry by entry: ustar, PAX and GNU, with limits where an archive could exhaust memory.
//!
//! In: a plain (decompressed) reader. Out: entries with names as bytes, numbers as numbers and extended attributes
//! byte-exact. Never touches the file system and never interprets a name. The fields of a header are decoded by
//! the `tar` crate; the order of headers is followed here, because that crate keeps extension headers of any size
//! in memory and splits extended attributes at line ends.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Bytes of a block. Source: POSIX.1-2017, `pax`.
const BLOCK: u64 = 512;
/// Longest extension header that is read. Source: Go, `archive/tar`, `maxSpecialFileSize`.
const MAX_EXTENSION: u64 = 1 << 20;
/// PAX key prefix of an extended attribute. Source: Go, `archive/tar`, `paxSchilyXattr`.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A further name of a file.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// One entry; its content is read from the [`Archive`] before the next entry is asked for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it makes.
    pub kind: Kind,
    /// The name as it stands in the archive.
    pub path: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a node.
    pub device: (u32, u32),
    /// Name and value of extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// The name for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// A tar archive being read. Implements `Read` for the content of the current entry.
pub struct Archive<R> {
    input: R,
    /// Content of the current entry not read yet.
    left: u64,
    /// Zero bytes after the content up to the next block.
    padding: u64,
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    is_sparse: bool,
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<R: Read> Archive<R> {
    /// Reads from the archive's beginning.
    pub fn new(input: R) -> Archive<R> {
        Archive { input, left: 0, padding: 0 }
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            if !self.skip_content()? {
                return Ok(None);
            }
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size = unsigned(&header.as_old().size)?;
            match kind {
                EntryType::XHeader => extension.apply_pax(&self.extension(size)?)?,
                // Global headers hold comments of the archiver (`git archive`); Go does not apply them either.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                EntryType::GNULongName => extension.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extension.link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&header, size, extension).map(Some),
            }
        }
    }

    /// Reads the underlying input to its end: what follows the end mark still counts for a digest.
    pub(crate) fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(drop)
    }

    /// Bytes of the current entry's content that are not read yet.
    pub fn content_left(&self) -> u64 {
        self.left
    }

    /// Whether the input ended before the content of the current entry did.
    pub fn has_content_left(&self) -> bool {
        self.left > 0
    }

    /// Skips what is left of the current entry. False where the input ends right behind its content: docker's client
    /// sends such archives for `build -f -`, and Go reads them. Source: docker/cli, `ReplaceFileTarWrapper`.
    fn skip_content(&mut self) -> io::Result<bool> {
        let (left, padding) = (std::mem::take(&mut self.left), std::mem::take(&mut self.padding));
        let mut skip = |rest| io::copy(&mut (&mut self.input).take(rest), &mut io::sink());
        if skip(left)? != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match skip(padding)? {
            all if all == padding => Ok(true),
            0 => Ok(false),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next header, or `None` at the end mark or where the input ends between entries.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as spaces. Source: POSIX.1-2017, `pax`.
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() == Some(sum) {
            Ok(Some(header))
        } else {
            Err(invalid("archive is no tar archive"))
        }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(invalid("extension header of the archive is too large"));
        }
        self.begin_content(size);
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        if data.len() as u64 == size { Ok(data) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn entry(&mut self, header: &Header, size: u64, extension: Extension) -> io::Result<Entry> {
        let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match header.entry_type() {
            _ if extension.is_sparse => return Err(invalid("sparse files are not supported")),
            // The oldest archives mark a folder by its name alone.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::GNUSparse => return Err(invalid("sparse files are not supported")),
            _ => return Err(invalid("archive has an entry of an unknown type")),
        };
        // Links and devices have no content whatever their size field says. Source: Go, `archive/tar`.
        let size = if kind == Kind::File { extension.size.unwrap_or(size) } else { 0 };
        self.begin_content(size);
        let old = header.as_old();
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let device = if is_device { device_of(header)? } else { (0, 0) };
        Ok(Entry {
            kind,
            link: extension.link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            path,
            mode: (unsigned(&old.mode)? & 0o7777) as u32,
            uid: extension.uid.map_or_else(|| unsigned(&old.uid), Ok)?,
            gid: extension.gid.map_or_else(|| unsigned(&old.gid), Ok)?,
            mtime: match extension.mtime {
                Some(mtime) => mtime,
                None => (number(&old.mtime).ok_or_else(bad_number)?, 0),
            },
            device,
            xattrs: extension.xattrs,
        })
    }
}

fn device_of(header: &Header) -> io::Result<(u32, u32)> {
    let fields = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (None, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        (None, None) => return Err(invalid("archive has a device in a format without devices")),
    };
    let number = |field: [u8; 8]| u32::try_from(unsigned(&field)?).map_err(|_| bad_number());
    Ok((number(fields.0)?, number(fields.1)?))
}

fn bad_number() -> io::Error {
    invalid("header of the archive has a bad number")
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    number(field).and_then(|n| u64::try_from(n).ok()).ok_or_else(bad_number)
}

/// Octal text, or two's complement if the first bit is set; a blank field is zero, as for Go.
/// Source: GNU tar manual, "Extensions to the basic format"; Go, `archive/tar`, `parseNumeric`.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
        return if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() };
    }
    // The second bit is the sign; the bits before a 64-bit value must repeat it.
    let sign = if first & 0x40 == 0 { 0 } else { -1 };
    let top = i64::from(first & 0x3f) | if sign == 0 { 0 } else { !0x3f };
    rest.iter().try_fold(top, |n, byte| {
        let shifted = n.checked_mul(256)?;
        Some(shifted | i64::from(*byte))
    })
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|b| *b == 0) {
        data.truncate(end);
    }
    data
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.input).take(self.left).read(buf)?;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Extension {
    /// Takes records `<length> <key>=<value>\n`; values may hold any byte, also line ends.
    fn apply_pax(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (record, rest) =
                split_record(data).ok_or_else(|| invalid("extension header is malformed"))?;
            data = rest;
            let equals =
                record.iter().position(|b| *b == b'=').ok_or_else(|| invalid("extension has no value"))?;
            self.apply(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let number = || -> io::Result<u64> {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|t| t.parse().ok()).ok_or_else(|| invalid("extension has a bad number"))
        };
        match key {
            // An empty value takes back an earlier record.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                self.mtime = Some(parse_time(value).ok_or_else(|| invalid("extension has a bad time"))?)
            }
            _ if key.starts_with(XATTR) => {
                self.xattrs.push((key[XATTR.len()..].to_vec(), value.to_vec()));
            }
            _ if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// Splits off one record, without its length and line end.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let len: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    if len > data.len() || len < space + 2 || data[len - 1] != b'\n' {
        return None;
    }
    Some((&data[space + 1..len - 1], &data[len..]))
}

/// Reads `-12.345`; digits beyond nanoseconds are dropped. The nanoseconds always count forward.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos != 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pax_header(records: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(records.len() as u64);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend(records);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn file_header(name: &str, size: u64) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o4755);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn first(bytes: &[u8]) -> io::Result<Option<Entry>> {
        Archive::new(bytes).next_entry()
    }

    #[test]
    fn an_attribute_may_hold_line_ends_and_zeros() {
        let bytes = [pax_header(b"30 SCHILY.xattr.user.x=a\n\0b\nc\n"), file_header("f", 0)].concat();
        let entry = first(&bytes).unwrap().unwrap();
        assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a\n\0b\nc".to_vec())]);
        assert_eq!((entry.mode, entry.path), (0o4755, b"f".to_vec()));
    }

    #[test]
    fn pax_overrides_name_size_and_time() {
        let records = b"13 path=long\n9 size=3\n20 mtime=-1.5000000\n";
        let bytes = [pax_header(records), file_header("short", 0), b"abc".to_vec()].concat();
        let mut archive = Archive::new(&bytes[..]);
        let entry = archive.next_entry().unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.mtime), (&b"long"[..], (-2, 500_000_000)));
        let mut content = String::new();
        archive.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
    }

    #[test]
    fn an_extension_of_a_gigabyte_is_refused_before_it_is_read() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 30);
        header.set_cksum();
        let error = first(header.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    #[test]
    fn an_archive_may_end_right_behind_its_last_content() {
        let bytes = [file_header("f", 3), b"abc".to_vec()].concat();
        let mut archive = Archive::new(&bytes[..]);
        archive.next_entry().unwrap().unwrap();
        assert!(archive.next_entry().unwrap().is_none());
        let bytes = [bytes, vec![0; 5]].concat();
        let mut archive = Archive::new(&bytes[..]);
        archive.next_entry().unwrap().unwrap();
        assert!(archive.next_entry().is_err(), "cut in the padding");
    }

    #[test]
    fn damaged_archives_are_errors() {
        assert!(first(&[b'x'; 512]).is_err());
        assert!(first(&[b'x'; 100]).is_err());
        assert!(first(&pax_header(b"999 path=x\n")).is_err());
        assert!(first(&pax_header(b"0 \n")).is_err());
        assert!(first(&pax_header(b"18446744073709551615 x=y\n")).is_err());
        assert!(first(b"").unwrap().is_none());
        assert!(first(&[0; 1024]).unwrap().is_none());
        let bytes = file_header("f", 5);
        let mut archive = Archive::new(&bytes[..]);
        archive.next_entry().unwrap().unwrap();
        assert!(archive.next_entry().is_err(), "content is missing");
    }

    #[test]
    fn numbers_are_octal_binary_or_blank() {
        for (field, expect) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"\x80\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"9", None),
            (b"-1", Some(-1)),
        ] {
            assert_eq!(number(field), expect, "{field:?}");
        }
    }

    #[test]
    fn times_are_exact() {
        for (text, expect) in [
            ("0", Some((0, 0))),
            ("12.000000001", Some((12, 1))),
            ("12.5", Some((12, 500_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expect, "{text}");
        }
    }
}
