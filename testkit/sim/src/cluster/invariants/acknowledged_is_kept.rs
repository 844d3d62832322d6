//! What a user was told is committed is part of the history, for ever: only a forced new cluster may lose it.

use std::collections::BTreeMap;

use store::Change;

pub(crate) fn check<'a>(
    mut acknowledged: impl Iterator<Item = &'a u64>,
    commits: &BTreeMap<u64, Vec<Change>>,
) -> Result<(), String> {
    match acknowledged.find(|index| !commits.contains_key(index)) {
        Some(index) => Err(format!("entry {index} was acknowledged and is lost")),
        None => Ok(()),
    }
}
