//! Writes the headers of tar archives: ustar, with PAX records for what does not fit.
//!
//! In: what an entry is. Out: whole blocks. Never touches the file system. Times have whole seconds, as Docker writes
//! them.

use crate::archive::Kind;

/// Bytes of a block. Source: POSIX.1-2017, `pax`.
pub(crate) const BLOCK: usize = 512;
/// Longest name in a ustar header.
const MAX_NAME: usize = 100;
/// Largest number in a field of eight bytes: seven octal digits.
const MAX_ID: u64 = 0o7_777_777;
/// Largest number in a field of twelve bytes: eleven octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// What an archive says of one entry.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    pub(crate) kind: Kind,
    /// A folder's ends with a slash.
    pub(crate) name: &'a [u8],
    /// Target of a symbolic or hard link.
    pub(crate) link: &'a [u8],
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    /// Of a file's content.
    pub(crate) size: u64,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Name and value of extended attributes.
    pub(crate) xattrs: &'a [(&'a [u8], Vec<u8>)],
}

impl Header<'_> {
    /// Appends the entry's blocks up to its content.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let records = self.records();
        if !records.is_empty() {
            // Its own name is of no interest, but must be there.
            block(out, b"PaxHeaders.0/entry", b'x', records.len() as u64, &Fields::default());
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        let fields = Fields {
            link: self.link,
            mode: self.mode,
            uid: u64::from(self.uid),
            gid: u64::from(self.gid),
            mtime: u64::try_from(self.mtime).unwrap_or(0),
            device: self.device,
        };
        block(out, self.name, type_flag(self.kind), self.size, &fields);
    }

    /// What the fields can't hold. Source: POSIX.1-2017, `pax`, "pax Extended Header".
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.name.len() > MAX_NAME {
            record(&mut records, b"path", self.name);
        }
        if self.link.len() > MAX_NAME {
            record(&mut records, b"linkpath", self.link);
        }
        for (key, value, most) in [
            ("size", self.size, MAX_SIZE),
            ("uid", u64::from(self.uid), MAX_ID),
            ("gid", u64::from(self.gid), MAX_ID),
        ] {
            if value > most {
                record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        if self.mtime < 0 || self.mtime.unsigned_abs() > MAX_SIZE {
            record(&mut records, b"mtime", self.mtime.to_string().as_bytes());
        }
        for (name, value) in self.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", *name].concat(), value);
        }
        records
    }
}

/// The fields of a header that may be empty.
#[derive(Default)]
struct Fields<'a> {
    link: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
    device: (u32, u32),
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Folder => b'5',
        Kind::Fifo => b'6',
    }
}

/// One header block. A number that is too large for its field is zero here and stands in a record.
fn block(out: &mut Vec<u8>, name: &[u8], kind: u8, size: u64, fields: &Fields<'_>) {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let octal = |value: u64, most: u64, digits: usize| {
        format!("{:0digits$o}", if value > most { 0 } else { value }).into_bytes()
    };
    put(0, &name[..name.len().min(MAX_NAME)]);
    put(100, &octal(u64::from(fields.mode), MAX_ID, 7));
    put(108, &octal(fields.uid, MAX_ID, 7));
    put(116, &octal(fields.gid, MAX_ID, 7));
    put(124, &octal(size, MAX_SIZE, 11));
    put(136, &octal(fields.mtime, MAX_SIZE, 11));
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &fields.link[..fields.link.len().min(MAX_NAME)]);
    put(257, b"ustar\x0000");
    put(329, &octal(u64::from(fields.device.0), MAX_ID, 7));
    put(337, &octal(u64::from(fields.device.1), MAX_ID, 7));
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Archive, Entry};

    fn header<'a>() -> Header<'a> {
        Header {
            kind: Kind::File,
            name: b"a/b",
            link: b"",
            mode: 0o4755,
            uid: 7,
            gid: 8,
            mtime: 1_000_000_000,
            size: 0,
            device: (0, 0),
            xattrs: &[],
        }
    }

    fn read_back(header: &Header<'_>) -> Entry {
        let mut blocks = Vec::new();
        header.append(&mut blocks);
        assert_eq!(blocks.len() % BLOCK, 0);
        Archive::new(&blocks[..]).next_entry().unwrap().unwrap()
    }

    #[test]
    fn a_plain_entry_is_one_block_and_reads_as_written() {
        let mut blocks = Vec::new();
        header().append(&mut blocks);
        assert_eq!(blocks.len(), BLOCK);
        let entry = read_back(&header());
        assert_eq!((entry.kind, entry.path.as_slice(), entry.mode), (Kind::File, &b"a/b"[..], 0o4755));
        assert_eq!((entry.uid, entry.gid, entry.mtime), (7, 8, (1_000_000_000, 0)));
    }

    #[test]
    fn what_does_not_fit_reads_as_written() {
        let long = [b'n'; 300];
        let xattrs = [(&b"security.capability"[..], b"\0\x01\n=\n".to_vec())];
        let entry = read_back(&Header {
            name: &long,
            link: &long,
            kind: Kind::Symlink,
            uid: 3_000_000_000,
            gid: MAX_ID as u32 + 1,
            mtime: -5,
            xattrs: &xattrs,
            ..header()
        });
        assert_eq!((entry.path.as_slice(), entry.link.as_slice()), (&long[..], &long[..]));
        assert_eq!((entry.uid, entry.gid, entry.mtime), (3_000_000_000, MAX_ID + 1, (-5, 0)));
        assert_eq!(entry.xattrs, [(xattrs[0].0.to_vec(), xattrs[0].1.clone())]);
        let mut blocks = Vec::new();
        Header { size: 1 << 40, ..header() }.append(&mut blocks);
        assert!(blocks.windows(22).any(|part| part == b"22 size=1099511627776\n"));
    }

    #[test]
    fn devices_keep_their_numbers() {
        let entry = read_back(&Header { kind: Kind::BlockDevice, device: (259, 70_000), ..header() });
        assert_eq!((entry.kind, entry.device), (Kind::BlockDevice, (259, 70_000)));
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 5, 90, 91, 92, 93, 94, 95, 96, 980, 990, 991, 992, 993, 994] {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; length]);
            let said: usize = String::from_utf8_lossy(&out).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, out.len(), "{length}");
        }
    }
}
