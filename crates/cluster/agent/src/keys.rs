//! This node's key file: its own key, and on a manager the keys of its storage, sealed while the swarm locks its
//! managers.
//!
//! In: what is on disk, what the cluster says of its lock. Out: the file, replaced as a whole before anything depends on
//! it. A storage key that was on disk in the open is replaced when the lock is put on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use manager::Manager;
use pki::{KeyFile, NodeKey, PkiError, SaveError, UnlockKey};
use tokio_util::sync::CancellationToken;

/// Wait after the file or the storage could not be sealed anew. chosen: a disk that is full may have room again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why the key file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("make a key for the manager's storage")]
    Make(#[source] PkiError),
    #[error("keep this node's keys")]
    Save(#[from] SaveError),
    #[error("the swarm's unlock key cannot be read")]
    UnlockKey(#[from] pki::MalformedUnlockKey),
    #[error("seal the manager's storage by another key")]
    Rekey(#[from] raft::RekeyError),
}

/// The key file. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    /// `<swarm directory>/certificates`.
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    file: KeyFile,
    /// Seals the file on disk; `None` while managers do not lock.
    lock: Option<UnlockKey>,
}

impl Keys {
    /// Of a file that is on disk in `directory`, opened by `lock` if it is sealed.
    pub(crate) fn new(directory: PathBuf, file: KeyFile, lock: Option<UnlockKey>) -> Self {
        Self { inner: Arc::new(Inner { directory, state: Mutex::new(State { file, lock }) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("nothing panics while it holds this lock")
    }

    /// The node's own key.
    pub(crate) fn node_key(&self) -> NodeKey {
        self.state().file.node_key.clone()
    }

    /// Changes the file; when this fails, nothing has changed.
    fn change(&self, change: impl FnOnce(&mut State) -> Result<(), KeysError>) -> Result<(), KeysError> {
        let mut state = self.state();
        let mut next = state.clone();
        change(&mut next)?;
        if next.file != state.file || next.lock != state.lock {
            next.file.save(&self.inner.directory, next.lock.as_ref())?;
            *state = next;
        }
        Ok(())
    }

    /// Keys of the manager's storage; made now if this node was no manager before.
    pub(crate) fn storage(&self) -> Result<raft::DataKeys, KeysError> {
        self.change(|state| {
            if state.file.data_keys.is_none() {
                state.file.data_keys = Some(pki::DataKeys::generate().map_err(KeysError::Make)?);
            }
            Ok(())
        })?;
        let keys = self.state().file.data_keys.clone().expect("it was made just now");
        let sealing = |key: &pki::DataKey| raft::DataKey::new(*key.bytes());
        Ok(match &keys.pending {
            None => raft::DataKeys::only(sealing(&keys.current)),
            Some(pending) => {
                raft::DataKeys { current: sealing(pending), former: vec![sealing(&keys.current)] }
            }
        })
    }

    /// Forgets the storage's keys and the lock: a worker has neither.
    pub(crate) fn forget_storage(&self) -> Result<(), KeysError> {
        self.change(|state| {
            state.file.data_keys = None;
            state.file.lock_version = 0;
            state.lock = None;
            Ok(())
        })
    }

    /// Seals the file as the cluster wants it. A lock that is put on or changed brings a new key for the storage.
    fn follow_lock(&self, key: &str, version: u64) -> Result<(), KeysError> {
        let lock = if key.is_empty() { None } else { Some(key.parse()?) };
        self.change(|state| {
            if version < state.file.lock_version {
                // What this replica knows is older than what it knew before.
                return Ok(());
            }
            state.file.lock_version = version;
            if lock == state.lock {
                return Ok(());
            }
            if lock.is_some()
                && let Some(keys) = &state.file.data_keys
            {
                state.file.data_keys = Some(keys.rotated().map_err(KeysError::Make)?);
            }
            state.lock = lock;
            Ok(())
        })
    }

    /// The storage's next key, while it changes.
    fn pending(&self) -> Option<raft::DataKey> {
        let state = self.state();
        let pending = state.file.data_keys.as_ref()?.pending.as_ref()?;
        Some(raft::DataKey::new(*pending.bytes()))
    }

    /// Nothing on disk needs the storage's former key any more.
    fn settle(&self) -> Result<(), KeysError> {
        self.change(|state| {
            state.file.data_keys = state.file.data_keys.as_ref().map(pki::DataKeys::settled);
            Ok(())
        })
    }
}

/// Keeps the files of a manager sealed as the cluster wants it, until `stopping`.
pub(crate) async fn keep_sealed(keys: Keys, manager: Manager, stopping: CancellationToken) {
    let mut unlock = manager.unlock_watch();
    let work = async {
        loop {
            let wanted = unlock.borrow_and_update().clone();
            if let Err(error) = seal(&keys, &manager, &wanted).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "this manager's files are not sealed as the swarm wants it"
                );
                tokio::time::sleep(AFTER_FAILURE).await;
            } else if unlock.changed().await.is_err() {
                return;
            }
        }
    };
    stopping.run_until_cancelled(work).await;
}

async fn seal(keys: &Keys, manager: &Manager, wanted: &manager::Unlock) -> Result<(), KeysError> {
    keys.follow_lock(&wanted.key, wanted.version)?;
    if let Some(pending) = keys.pending() {
        manager.rekey(pending).await?;
        keys.settle()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pki::StoredKey;

    use super::*;

    fn keys(directory: &Path) -> Keys {
        Keys::new(directory.to_owned(), KeyFile::new(NodeKey::generate().unwrap()), None)
    }

    fn is_locked(directory: &Path) -> bool {
        matches!(StoredKey::load(directory).unwrap().unwrap(), StoredKey::Locked(_))
    }

    #[test]
    fn a_lock_seals_the_file_and_brings_the_storage_a_key_that_was_never_in_the_open() {
        let root = tempfile::tempdir().unwrap();
        let keys = keys(root.path());
        let open = keys.storage().unwrap();
        assert!(!is_locked(root.path()));
        let lock = UnlockKey::generate().unwrap();
        keys.follow_lock(&lock.to_string(), 1).unwrap();
        assert!(is_locked(root.path()));
        let rotating = keys.storage().unwrap();
        assert!(rotating.current != open.current && rotating.former == [open.current.clone()]);
        // A crash here: the file still has both.
        let StoredKey::Locked(file) = StoredKey::load(root.path()).unwrap().unwrap() else { panic!() };
        let again = Keys::new(root.path().to_owned(), file.unlock(&lock).unwrap(), Some(lock.clone()));
        assert!(again.pending().is_some());
        again.settle().unwrap();
        assert!(again.storage().unwrap().former.is_empty() && again.pending().is_none());
        // A replica that is behind does not open it.
        again.follow_lock("", 0).unwrap();
        assert!(is_locked(root.path()));
        again.follow_lock("", 2).unwrap();
        assert!(!is_locked(root.path()) && again.pending().is_none());
    }

    #[test]
    fn a_worker_keeps_no_keys_of_a_storage() {
        let root = tempfile::tempdir().unwrap();
        let keys = keys(root.path());
        let before = keys.storage().unwrap();
        keys.follow_lock(&UnlockKey::generate().unwrap().to_string(), 4).unwrap();
        keys.forget_storage().unwrap();
        let StoredKey::Open(file) = StoredKey::load(root.path()).unwrap().unwrap() else { panic!() };
        assert_eq!((file.data_keys, file.lock_version), (None, 0));
        assert!(keys.storage().unwrap().current != before.current);
    }
}
