//! Writes and reads netlink messages: headers, attributes, nests.
//!
//! In and out: bytes in host order unless a method says `be`. Never talks to a socket.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Set in an attribute's type when it holds attributes.
pub(crate) const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// An open nest or message, to be closed with [`Encoder::end`] or [`Encoder::finish`].
#[must_use]
pub(crate) struct Mark(usize);

/// Appends messages to one buffer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Starts a message; its length is written by `finish`.
    pub(crate) fn start(&mut self, kind: u16, flags: u16, sequence: u32) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        mark
    }

    pub(crate) fn finish(&mut self, mark: Mark) {
        let length = u32::try_from(self.bytes.len() - mark.0).expect("a message is far below 4 GiB");
        self.bytes[mark.0..mark.0 + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// Appends bytes that are no attribute (the fixed header of a message family).
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Gives the first message of the buffer its sequence number and further flags.
    pub(crate) fn number(&mut self, sequence: u32, flags: u16) {
        let flags = flags | read_u16(&self.bytes, 6).expect("a message has a header");
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("callers keep one attribute below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A string with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Opens a nest with the nested flag set, as nf_tables wants it and rtnetlink accepts it.
    pub(crate) fn nest(&mut self, kind: u16) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        mark
    }

    pub(crate) fn end(&mut self, mark: Mark) {
        let length = u16::try_from(self.bytes.len() - mark.0).expect("callers keep one nest below 64 KiB");
        self.bytes[mark.0..mark.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Port of the socket that asked for what this message tells.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Iterates over the messages of one datagram; stops at the first malformed one.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        if datagram.len() < HEADER {
            return None;
        }
        let length = read_u32(datagram, 0)? as usize;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let message = Message {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            port: read_u32(datagram, 12)?,
            payload: &datagram[HEADER..length],
        };
        datagram = &datagram[align(length).min(datagram.len())..];
        Some(message)
    })
}

/// Iterates over attributes as (type without flags, value); stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let kind = read_u16(bytes, 2)? & TYPE_MASK;
        let value = &bytes[4..length];
        bytes = &bytes[align(length).min(bytes.len())..];
        Some((kind, value))
    })
}

/// Attributes that follow a fixed header of `skip` bytes.
pub(crate) fn attributes_after(payload: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(skip..).unwrap_or_default())
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn read_u32_be(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// A string up to its first zero byte.
pub(crate) fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut encoder = Encoder::new();
        let message = encoder.start(7, 5, 9);
        encoder.raw(&[1, 2, 3]);
        encoder.text(3, "abc");
        let nest = encoder.nest(4);
        encoder.u32(1, 77);
        encoder.u8(2, 6);
        encoder.end(nest);
        encoder.finish(message);
        let second = encoder.start(8, 0, 10);
        encoder.finish(second);

        let found: Vec<_> = messages(encoder.bytes()).collect();
        assert_eq!(
            found.iter().map(|m| (m.kind, m.flags, m.sequence)).collect::<Vec<_>>(),
            [(7, 5, 9), (8, 0, 10)]
        );
        let outer: Vec<_> = attributes_after(found[0].payload, 4).collect();
        assert_eq!(outer[0].0, 3);
        assert_eq!(read_text(outer[0].1), "abc");
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(read_u32(inner[0].1, 0), Some(77));
        assert_eq!(inner[1], (2, &[6u8][..]));
    }

    #[test]
    fn truncated_input_ends_the_iteration_without_a_panic() {
        let mut encoder = Encoder::new();
        let message = encoder.start(7, 5, 9);
        encoder.text(3, "abcdef");
        encoder.finish(message);
        for end in 0..encoder.len() {
            let cut = &encoder.bytes()[..end];
            assert_eq!(messages(cut).count(), 0);
            assert!(attributes(cut).count() <= end);
        }
    }
}
