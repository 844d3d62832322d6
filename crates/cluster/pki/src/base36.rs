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

#[cfg(test)]
mod tests {
    use super::encode;

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
