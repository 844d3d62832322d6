//! Two managers never lead in the same term of the same log.

use std::collections::BTreeMap;

use crate::cluster::time::Machine;

/// Notes a leadership; an error if somebody else had it.
pub(crate) fn check(
    leaders: &mut BTreeMap<(u64, u64), Machine>,
    machine: Machine,
    epoch: u64,
    term: u64,
) -> Result<(), String> {
    let first = *leaders.entry((epoch, term)).or_insert(machine);
    if first == machine {
        Ok(())
    } else {
        Err(format!("managers {first} and {machine} both led in term {term}"))
    }
}
