//! Every manager applies the same entries, with the same changes.

use std::collections::BTreeMap;

use store::Change;

pub(crate) fn check(
    commits: &BTreeMap<u64, Vec<Change>>,
    index: u64,
    changes: &[Change],
) -> Result<(), String> {
    match commits.get(&index) {
        Some(known) if known != changes => Err(format!("entry {index} is not what another manager applied")),
        Some(_) => Ok(()),
        // One whose commands were all refused changed nothing elsewhere, so it must not here.
        None if commits.keys().next_back().is_some_and(|last| *last > index) => {
            Err(format!("entry {index} exists for one manager only"))
        }
        None => Ok(()),
    }
}
