//! Big numbers in base 36 with a fixed width, as join tokens write them.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `bytes` as a big-endian number, padded with zeros on the left to `width` digits.
pub(crate) fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::with_capacity(width);
    while number.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        digits.push(DIGITS[remainder as usize]);
    }
    digits.resize(digits.len().max(width), b'0');
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// The number in `width` bytes, big-endian; `None` when it has other digits or needs more bytes.
pub(crate) fn decode(digits: &str, width: usize) -> Option<Vec<u8>> {
    let mut number = vec![0_u8; width];
    for digit in digits.bytes() {
        let mut carry = u32::try_from(DIGITS.iter().position(|known| *known == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xFF) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn numbers_survive_being_written() {
        for bytes in [[0; 32], [0xFF; 32], [7; 32]] {
            assert_eq!(decode(&encode(&bytes, 50), 32).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(decode("zz", 1), None);
        assert_eq!(decode("A", 1), None);
    }

    #[test]
    fn numbers_are_padded_to_their_width() {
        assert_eq!(encode(&[0], 3), "000");
        assert_eq!(encode(&[35], 1), "z");
        assert_eq!(encode(&[36], 1), "10");
        assert_eq!(encode(&[1, 0], 4), "0074");
        assert_eq!(encode(&[0xFF; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(encode(&[0xFF; 32], 50).len(), 50);
    }
}
