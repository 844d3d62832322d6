//! A manager's process applies entries in order, each once; and a store's version is the index of the last one.

use store::Store;

pub(crate) fn check(last: Option<u64>, index: u64, committed: &Store) -> Result<(), String> {
    if last.is_some_and(|last| last >= index) {
        return Err(format!("entry {index} was applied after entry {}", last.unwrap_or_default()));
    }
    if committed.applied() < index {
        return Err(format!("the store is at {} after entry {index}", committed.applied()));
    }
    Ok(())
}
