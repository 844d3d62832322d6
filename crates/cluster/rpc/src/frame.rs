//! How several messages share one body: each has its length before it.
//!
//! In a stream a first byte says what the message is; the header of an upload is a single message of that form.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Kind and length.
const HEAD: usize = 5;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An item of the stream, or the header of an upload.
    Item,
    /// The last message: why the stream ends.
    Refusal,
    /// Nothing: a piece would be too short without it.
    Padding,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Item => 0,
            Self::Refusal => 1,
            Self::Padding => 2,
        }
    }
}

/// Something that is not a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a message of {length} bytes is longer than {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a message of kind {0}")]
    Kind(u8),
}

/// Adds a message with its head.
pub(crate) fn write(piece: &mut BytesMut, kind: Kind, body: &[u8]) {
    piece.reserve(HEAD + body.len());
    write_head(piece, kind, body.len());
    piece.put_slice(body);
}

/// Adds a message that says nothing, of at least that many bytes.
pub(crate) fn write_padding(piece: &mut BytesMut, length: usize) {
    let length = length.saturating_sub(HEAD);
    write_head(piece, Kind::Padding, length);
    piece.put_bytes(0, length);
}

fn write_head(piece: &mut BytesMut, kind: Kind, length: usize) {
    piece.put_u8(kind.byte());
    piece.put_u32(u32::try_from(length).expect("messages are far below 4 GiB"));
}

/// A message with its head.
pub(crate) fn encode(kind: Kind, body: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    write(&mut message, kind, body);
    message.freeze()
}

/// Takes the next message out of what has arrived; `None` while it is incomplete.
pub(crate) fn decode(arrived: &mut BytesMut, limit: usize) -> Result<Option<(Kind, Bytes)>, Malformed> {
    loop {
        let Some(head) = arrived.get(..HEAD) else { return Ok(None) };
        let kind = match head[0] {
            0 => Kind::Item,
            1 => Kind::Refusal,
            2 => Kind::Padding,
            other => return Err(Malformed::Kind(other)),
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > limit {
            return Err(Malformed::TooLong { length, limit });
        }
        if arrived.len() < HEAD + length {
            // Room for the rest in one piece, but no more than has a right to be there.
            arrived.reserve(HEAD + length - arrived.len());
            return Ok(None);
        }
        arrived.advance(HEAD);
        let body = arrived.split_to(length);
        if kind != Kind::Padding {
            return Ok(Some((kind, body.freeze())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_arrive() {
        let sent =
            [encode(Kind::Item, b"one"), encode(Kind::Item, b""), encode(Kind::Refusal, b"no")].concat();
        for piece in 1..=sent.len() {
            let mut arrived = BytesMut::new();
            let mut out = Vec::new();
            for part in sent.chunks(piece) {
                arrived.extend_from_slice(part);
                while let Some(message) = decode(&mut arrived, 3).unwrap() {
                    out.push(message);
                }
            }
            let expected = [
                (Kind::Item, Bytes::from_static(b"one")),
                (Kind::Item, Bytes::new()),
                (Kind::Refusal, Bytes::from_static(b"no")),
            ];
            assert_eq!(out, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_head() {
        let mut arrived = BytesMut::from(&encode(Kind::Item, b"four")[..HEAD]);
        assert_eq!(decode(&mut arrived, 3), Err(Malformed::TooLong { length: 4, limit: 3 }));
        assert_eq!(decode(&mut BytesMut::from(&[7, 0, 0, 0, 0][..]), 3), Err(Malformed::Kind(7)));
    }
}
