//! Seals small secrets with a key: AES-256-GCM with a random nonce.
//!
//! In: a key, what the secret belongs to, the bytes. Out: nonce and sealed bytes in one. The nonce is random: a key
//! seals a few thousand texts at most, far from where 96 random bits meet.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::authority::PkiError;

/// Seals `plain`; whoever opens it must name the same `purpose`.
pub(crate) fn seal(key: &[u8; 32], purpose: &str, plain: &[u8]) -> Result<Vec<u8>, PkiError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(PkiError::Random)?;
    let mut sealed = plain.to_vec();
    cipher(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut sealed,
        )
        .expect("a secret is far below the 64 GiB that the cipher takes");
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] made; `None` when the key or the purpose is another one, or the bytes were changed.
pub(crate) fn open(key: &[u8; 32], purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = sealed.to_vec();
    let plain = cipher(key).open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut bytes).ok()?;
    Some(plain.to_vec())
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::{open, seal};

    #[test]
    fn only_the_same_key_and_purpose_open() {
        let sealed = seal(&[1; 32], "data key", b"secret").expect("randomness");
        assert_eq!(open(&[1; 32], "data key", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(open(&[2; 32], "data key", &sealed), None);
        assert_eq!(open(&[1; 32], "node key", &sealed), None);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn a_changed_or_cut_text_does_not_open() {
        let sealed = seal(&[1; 32], "p", b"secret").expect("randomness");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(open(&[1; 32], "p", &changed), None, "{place}");
            assert_eq!(open(&[1; 32], "p", &sealed[..place]), None, "{place}");
        }
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        assert_ne!(
            seal(&[1; 32], "p", b"s").expect("randomness"),
            seal(&[1; 32], "p", b"s").expect("randomness")
        );
    }
}
