//! Undoes the compression of layers and archives, recognised by their first bytes.
//!
//! In: a reader. Out: a reader of the plain content, and which encoding it was. Never trusts a media type:
//! registries and archives mislabel layers, their first bytes do not.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// How a layer or archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

/// The content is compressed in a way we cannot undo.
#[derive(Debug, thiserror::Error)]
#[error("unsupported compression `{0}`: use gzip, zstd or none")]
pub(crate) struct UnknownEncoding(pub &'static str);

impl Encoding {
    /// Source: the magic numbers of RFC 1952, RFC 8878, and the formats' own descriptions.
    pub(crate) fn of(head: &[u8]) -> Result<Encoding, UnknownEncoding> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Encoding::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Encoding::Zstd),
            // A skippable frame, with which some tools begin a seekable archive.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Ok(Encoding::Zstd),
            [b'B', b'Z', b'h', ..] => Err(UnknownEncoding("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Err(UnknownEncoding("xz")),
            _ => Ok(Encoding::Plain),
        }
    }

    /// The OCI media type of a layer encoded like this.
    pub(crate) fn layer_media_type(self) -> &'static str {
        match self {
            Encoding::Plain => "application/vnd.oci.image.layer.v1.tar",
            Encoding::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Encoding::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Recognises and undoes the compression of `input`. An empty input is plain.
///
/// # Errors
/// The reader's own; `InvalidData` around [`UnknownEncoding`] when the compression is not known.
pub(crate) fn decode<'a, R: Read + 'a>(input: R) -> io::Result<(Encoding, Box<dyn Read + 'a>)> {
    let mut input = io::BufReader::with_capacity(BUFFER, Peeked::new(input)?);
    let encoding =
        Encoding::of(input.fill_buf()?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((
        encoding,
        match encoding {
            Encoding::Plain => Box::new(input),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(input)),
            Encoding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        },
    ))
}

/// Chosen: large enough that a system call is rare, small enough for many layers at once.
const BUFFER: usize = 64 * 1024;
/// The longest magic number above.
pub(crate) const HEAD: usize = 6;

/// A reader whose first read yields at least [`HEAD`] bytes, unless there are fewer in all.
struct Peeked<R> {
    head: [u8; HEAD],
    len: usize,
    at: usize,
    rest: R,
}

impl<R: Read> Peeked<R> {
    fn new(mut rest: R) -> io::Result<Peeked<R>> {
        let (mut head, mut len) = ([0; HEAD], 0);
        while len < HEAD {
            match rest.read(&mut head[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Peeked { head, len, at: 0, rest })
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.len {
            return self.rest.read(buf);
        }
        let n = buf.len().min(self.len - self.at);
        buf[..n].copy_from_slice(&self.head[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Yields one byte at a time, as the worst of all networks.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(1).min(self.0.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn check(input: &[u8], encoding: Encoding, expect: &[u8]) {
        let (found, mut reader) = decode(Dripping(input)).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!((found, out.as_slice()), (encoding, expect));
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_encoding_is_recognised_and_undone() {
        check(b"", Encoding::Plain, b"");
        check(b"ab", Encoding::Plain, b"ab");
        check(b"plain text", Encoding::Plain, b"plain text");
        check(&gzip(b"hello"), Encoding::Gzip, b"hello");
        check(&[gzip(b"hel"), gzip(b"lo")].concat(), Encoding::Gzip, b"hello");
        let frame = zstd::stream::encode_all(&b"hello"[..], 1).unwrap();
        check(&frame, Encoding::Zstd, b"hello");
        check(&[frame.clone(), frame].concat(), Encoding::Zstd, b"hellohello");
    }

    #[test]
    fn a_cut_archive_is_an_error_not_an_end() {
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&data), zstd::stream::encode_all(&data[..], 1).unwrap()] {
            let mut out = Vec::new();
            let (_, mut reader) = decode(&whole[..whole.len() / 2]).unwrap();
            assert!(reader.read_to_end(&mut out).is_err());
        }
    }

    #[test]
    fn other_compressions_are_named() {
        let Err(error) = decode(&b"BZh91AY"[..]) else { panic!("accepted") };
        assert!(error.to_string().contains("bzip2"), "{error}");
    }
}
