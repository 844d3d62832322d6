//! Encryption at rest: every record of the log and every piece of a snapshot is sealed by the data key.
//!
//! ```text
//!  1 byte   4 bytes  16 bytes  8 bytes, BE  rest
//!  version  key id   salt      counter      AES-256-GCM of the content, with its tag
//! ```
//!
//! The key that seals is derived from the data key by a salt that each opening of the log draws anew, and counts its
//! nonces: so no nonce is ever used twice, however long a data key is kept. What a record is for (its name or index) is
//! authenticated with it, so that no record can take another's place. Never writes a key anywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;

use crate::runtime;

/// Of a data key, in bytes: AES-256.
pub const DATA_KEY_BYTES: usize = 32;

/// The newest format of a sealed record. 1 was not encrypted.
const VERSION: u8 = 2;

const KEY_ID_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES + COUNTER_BYTES;

/// Derived keys that are remembered. chosen: one per opening of the log whose records are still in it.
const CACHED_KEYS: usize = 64;

type KeyId = [u8; KEY_ID_BYTES];
type Salt = [u8; SALT_BYTES];

/// The key that what is on disk is sealed by. Its value is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; DATA_KEY_BYTES]);

impl DataKey {
    /// A key with this value.
    #[must_use]
    pub fn new(bytes: [u8; DATA_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; DATA_KEY_BYTES];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&runtime::random().to_le_bytes());
        }
        Self(bytes)
    }

    /// Its value, to be kept under another key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; DATA_KEY_BYTES] {
        &self.0
    }

    /// Tells which key sealed a record, without telling anything about the key.
    fn id(&self) -> KeyId {
        let mut named = b"skep data key id ".to_vec();
        named.extend_from_slice(&self.0);
        let sum = digest(&SHA256, &named);
        named.fill(0);
        let mut id = KeyId::default();
        id.copy_from_slice(&sum.as_ref()[..KEY_ID_BYTES]);
        id
    }

    /// The key that seals between two openings of a log.
    fn derive(&self, salt: &Salt) -> LessSafeKey {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), salt);
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("an HMAC-SHA256 has 32 bytes");
        LessSafeKey::new(key)
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Otherwise writing to what is gone anyway would be optimised away.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// The keys of a log: the one that seals, and others that may have sealed what is still on disk.
#[derive(Clone, Debug)]
pub struct DataKeys {
    /// Seals everything new.
    pub current: DataKey,
    /// Opens what a change of keys that was interrupted left behind. May hold a key that never sealed anything.
    pub former: Vec<DataKey>,
}

impl DataKeys {
    /// One key and nothing else.
    #[must_use]
    pub fn only(current: DataKey) -> Self {
        Self { current, former: Vec::new() }
    }
}

/// Why a sealed record cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsealError {
    #[error("the record is cut off")]
    Short,
    #[error("the record has format {found}, known is {VERSION}")]
    Version { found: u8 },
    #[error("the record was sealed by a key that is not given")]
    UnknownKey,
    #[error("the record is damaged, or in the wrong place")]
    Damaged,
}

struct Current {
    id: KeyId,
    salt: Salt,
    key: LessSafeKey,
}

impl Current {
    fn new(key: &DataKey) -> Self {
        let mut salt = Salt::default();
        for part in salt.chunks_exact_mut(8) {
            part.copy_from_slice(&runtime::random().to_le_bytes());
        }
        Self { id: key.id(), salt, key: key.derive(&salt) }
    }
}

/// Seals and opens records.
pub(crate) struct Sealer {
    current: RwLock<Current>,
    counter: AtomicU64,
    keys: Mutex<BTreeMap<KeyId, DataKey>>,
    derived: Mutex<BTreeMap<(KeyId, Salt), LessSafeKey>>,
}

impl Sealer {
    pub(crate) fn new(keys: &DataKeys) -> Self {
        let all = keys.former.iter().chain([&keys.current]);
        Self {
            current: RwLock::new(Current::new(&keys.current)),
            counter: AtomicU64::new(0),
            keys: Mutex::new(all.map(|key| (key.id(), key.clone())).collect()),
            derived: Mutex::default(),
        }
    }

    /// Seals everything new by `key` from now on; what the others sealed can still be opened.
    pub(crate) fn replace(&self, key: &DataKey) {
        lock(&self.keys).insert(key.id(), key.clone());
        *self.current.write().expect("nothing panics while holding it") = Current::new(key);
    }

    /// Forgets every key but the current one.
    pub(crate) fn forget_former(&self) {
        let current = self.current.read().expect("nothing panics while holding it").id;
        lock(&self.keys).retain(|id, _| *id == current);
        lock(&self.derived).retain(|(id, _), _| *id == current);
    }

    /// Whether a record was sealed by the key that seals now.
    pub(crate) fn is_current(&self, record: &[u8]) -> bool {
        let current = self.current.read().expect("nothing panics while holding it");
        record.get(1..=KEY_ID_BYTES).is_some_and(|id| id == current.id)
    }

    /// Seals `content` for `place`.
    pub(crate) fn seal(&self, place: &[u8], content: &[u8]) -> Vec<u8> {
        let current = self.current.read().expect("nothing panics while holding it");
        let counter = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut record = Vec::with_capacity(HEADER_BYTES + content.len() + AES_256_GCM.tag_len());
        record.push(VERSION);
        record.extend_from_slice(&current.id);
        record.extend_from_slice(&current.salt);
        record.extend_from_slice(&counter);
        record.extend_from_slice(content);
        let (_, sealed) = record.split_at_mut(HEADER_BYTES);
        let tag = current
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(place), sealed)
            .expect("AES-GCM seals anything below 64 GiB");
        record.extend_from_slice(tag.as_ref());
        record
    }

    /// Opens what was sealed for `place`.
    pub(crate) fn open(&self, place: &[u8], record: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let version = *record.first().ok_or(UnsealError::Short)?;
        if version != VERSION {
            return Err(UnsealError::Version { found: version });
        }
        let (header, sealed) = record.split_at_checked(HEADER_BYTES).ok_or(UnsealError::Short)?;
        let (id, rest) = header[1..].split_first_chunk::<KEY_ID_BYTES>().ok_or(UnsealError::Short)?;
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or(UnsealError::Short)?;
        let counter = *rest.first_chunk::<COUNTER_BYTES>().ok_or(UnsealError::Short)?;
        let key = lock(&self.keys).get(id).cloned().ok_or(UnsealError::UnknownKey)?;
        let mut content = sealed.to_vec();
        let mut derived = lock(&self.derived);
        if derived.len() > CACHED_KEYS {
            derived.clear();
        }
        let opener = derived.entry((*id, *salt)).or_insert_with(|| key.derive(salt));
        let length = opener
            .open_in_place(nonce(counter), Aad::from(place), &mut content)
            .map_err(|_| UnsealError::Damaged)?
            .len();
        content.truncate(length);
        Ok(content)
    }
}

fn nonce(counter: [u8; COUNTER_BYTES]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter);
    Nonce::assume_unique_for_key(nonce)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while holding it")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::{DataKey, DataKeys, Sealer, UnsealError};

    fn sealer(key: u8, former: &[u8]) -> Sealer {
        let former = former.iter().map(|byte| DataKey::new([*byte; 32])).collect();
        Sealer::new(&DataKeys { current: DataKey::new([key; 32]), former })
    }

    #[test]
    fn what_was_sealed_opens_after_a_restart_and_shows_nothing() {
        let content = b"the plain text of a secret";
        let record = sealer(1, &[]).seal(b"entry 7", content);
        assert!(!record.windows(10).any(|part| content.windows(10).any(|plain| plain == part)));
        assert_eq!(sealer(1, &[]).open(b"entry 7", &record).unwrap(), content);
        assert_eq!(sealer(2, &[1]).open(b"entry 7", &record).unwrap(), content);
    }

    #[test]
    fn a_record_is_refused_with_another_key_in_another_place_or_damaged() {
        let record = sealer(1, &[]).seal(b"entry 7", b"content");
        let opener = sealer(1, &[]);
        assert!(matches!(sealer(2, &[]).open(b"entry 7", &record), Err(UnsealError::UnknownKey)));
        assert!(matches!(opener.open(b"entry 8", &record), Err(UnsealError::Damaged)));
        for at in 0..record.len() {
            let mut rotten = record.clone();
            rotten[at] ^= 1;
            assert!(opener.open(b"entry 7", &rotten).is_err(), "a flipped bit in byte {at}");
            assert!(opener.open(b"entry 7", &record[..at]).is_err(), "cut off at {at}");
        }
    }

    #[test]
    fn a_key_that_was_replaced_and_forgotten_opens_nothing() {
        let sealer = sealer(1, &[]);
        let old = sealer.seal(b"a", b"old");
        sealer.replace(&DataKey::new([2; 32]));
        let new = sealer.seal(b"a", b"new");
        assert!(sealer.is_current(&new) && !sealer.is_current(&old));
        assert_eq!(sealer.open(b"a", &old).unwrap(), b"old");
        sealer.forget_former();
        assert!(matches!(sealer.open(b"a", &old), Err(UnsealError::UnknownKey)));
        assert_eq!(sealer.open(b"a", &new).unwrap(), b"new");
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", DataKeys::only(DataKey::new([7; 32])));
        assert!(!shown.contains('7'), "{shown}");
    }
}
