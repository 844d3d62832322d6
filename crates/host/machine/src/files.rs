//! Files of a machine: replaced as a whole, so that a reader never sees half of one.

use std::fs;
use std::path::Path;

use crate::error::{MachineError, file};

pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), MachineError> {
    let next = path.with_extension("new");
    fs::write(&next, content).map_err(file("write", &next))?;
    fs::rename(&next, path).map_err(file("replace", path))
}
