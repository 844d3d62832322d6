//! Docker's multiplexed stream: a header of eight bytes before each piece of output.
//!
//! In: a stream and bytes. Out: a frame `[stream, 0, 0, 0, length as big-endian u32]` and the bytes.
//! Never splits or joins pieces: the CLI relies on one log line per frame.

use crate::OutputStream;

/// Bytes before each piece. Source: moby, `api/pkg/stdcopy/stdcopy.go`.
pub const FRAME_HEADER_LEN: usize = 8;

/// The header of a piece of `len` bytes.
pub const fn frame_header(stream: OutputStream, len: u32) -> [u8; FRAME_HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream.number(), 0, 0, 0, a, b, c, d]
}

/// Header and piece in one buffer. A piece of 4 GiB or more is cut; logs and pipes never make one.
pub fn frame(stream: OutputStream, piece: &[u8]) -> Vec<u8> {
    let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
    let piece = &piece[..len as usize];
    let mut framed = Vec::with_capacity(FRAME_HEADER_LEN + piece.len());
    framed.extend_from_slice(&frame_header(stream, len));
    framed.extend_from_slice(piece);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_carries_stream_and_length() {
        assert_eq!(frame(OutputStream::Stderr, b"abc"), b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(frame_header(OutputStream::Stdout, 0x0102_0304), [1, 0, 0, 0, 1, 2, 3, 4]);
    }
}
