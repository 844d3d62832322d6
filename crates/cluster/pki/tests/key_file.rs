//! The key file on disk: open, locked, damaged, and left halfway by a crash.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pki::{
    DataKeys, KeyFile, KeyFileError, NodeFiles, NodeKey, StoredKey, UnlockKey, WrongUnlockKey, encode_base64,
};

const NAME: &str = "swarm-node.key";

fn manager() -> KeyFile {
    let node_key = NodeKey::generate().unwrap();
    let keys = DataKeys::generate().unwrap().rotated().unwrap();
    KeyFile { node_key, data_keys: Some(keys), lock_version: 7 }
}

fn load(directory: &Path) -> StoredKey {
    StoredKey::load(directory).unwrap().expect("a key file")
}

#[test]
fn an_open_file_gives_back_what_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    assert!(StoredKey::load(directory.path()).unwrap().is_none());
    for file in [manager(), KeyFile::new(NodeKey::generate().unwrap())] {
        file.save(directory.path(), None).unwrap();
        let StoredKey::Open(found) = load(directory.path()) else { panic!("locked") };
        assert_eq!(found, file);
        let mode = fs::metadata(directory.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_locked_file_opens_with_its_key_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = (manager(), UnlockKey::generate().unwrap());
    file.save(directory.path(), Some(&key)).unwrap();
    let StoredKey::Locked(locked) = load(directory.path()) else { panic!("open") };
    assert_eq!(locked.unlock(&UnlockKey::generate().unwrap()), Err(WrongUnlockKey));
    assert_eq!(locked.unlock(&key).unwrap(), file);
}

#[test]
fn a_locked_file_shows_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = (manager(), UnlockKey::generate().unwrap());
    file.save(directory.path(), Some(&key)).unwrap();
    let text = fs::read_to_string(directory.path().join(NAME)).unwrap().replace('\n', "");
    let keys = file.data_keys.clone().unwrap();
    let node_key: String = file.node_key.pem().lines().filter(|line| !line.starts_with('-')).collect();
    let secrets = [
        node_key,
        encode_base64(keys.current.bytes()),
        encode_base64(keys.pending.as_ref().unwrap().bytes()),
        key.to_string(),
    ];
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
    let shown = format!("{file:?} {key:?} {:?}", load(directory.path()));
    assert!(!shown.contains("MIG") && !shown.contains('['), "{shown}");
}

#[test]
fn a_sealed_part_cannot_take_the_place_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = (manager(), UnlockKey::generate().unwrap());
    file.save(directory.path(), Some(&key)).unwrap();
    let path = directory.path().join(NAME);
    let text = fs::read_to_string(&path).unwrap();
    let swapped = text
        .replace("raft-dek-pending:", "other:")
        .replace("raft-dek:", "raft-dek-pending:")
        .replace("other:", "raft-dek:");
    fs::write(&path, swapped).unwrap();
    let StoredKey::Locked(locked) = load(directory.path()) else { panic!("open") };
    assert_eq!(locked.unlock(&key), Err(WrongUnlockKey));
}

#[test]
fn a_plain_key_without_headers_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let key = NodeKey::generate().unwrap();
    fs::write(directory.path().join(NAME), key.pem()).unwrap();
    let StoredKey::Open(found) = load(directory.path()) else { panic!("locked") };
    assert_eq!(found, KeyFile::new(key));
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    manager().save(directory.path(), None).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for length in (0..text.len() - 1).step_by(7) {
        fs::write(&path, &text[..length]).unwrap();
        let refused = StoredKey::load(directory.path()).unwrap_err();
        assert!(matches!(refused, KeyFileError::Damaged { .. }), "cut at {length}");
        assert!(refused.to_string().contains(NAME));
    }
}

#[test]
fn a_draft_left_by_a_crash_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let draft = directory.path().join("swarm-node.key.new");
    fs::write(&draft, "half a fi").unwrap();
    assert!(StoredKey::load(directory.path()).unwrap().is_none());
    let file = manager();
    file.save(directory.path(), None).unwrap();
    assert!(!draft.exists());
    assert!(matches!(load(directory.path()), StoredKey::Open(found) if found == file));
}

#[test]
fn a_data_key_on_its_way_is_not_replaced_by_yet_another() {
    let keys = DataKeys::generate().unwrap();
    let rotated = keys.rotated().unwrap();
    assert_eq!(rotated.current, keys.current);
    assert_eq!(rotated.rotated().unwrap(), rotated);
    let settled = rotated.settled();
    assert_eq!((Some(settled.current.clone()), None), (rotated.pending, settled.pending.clone()));
    assert_eq!(settled.settled(), settled);
}

#[test]
fn certificate_and_roots_are_saved_together_and_need_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let files = NodeFiles { chain: "chain".into(), roots: "roots".into() };
    files.save(directory.path()).unwrap();
    assert_eq!(NodeFiles::load(directory.path()).unwrap(), Some(files));
    fs::remove_file(directory.path().join("swarm-root-ca.crt")).unwrap();
    assert_eq!(NodeFiles::load(directory.path()).unwrap(), None);
}
