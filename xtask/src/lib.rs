//! Walks the workspace for the checks in `tests/`.
//!
//! In: the checkout this crate was built from. Out: its files and its crate graph. Never changes a file.

use std::path::{Path, PathBuf};

/// The root of the workspace: the parent of this crate's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// Every file below `folder` whose name ends in `suffix`, sorted; build output and hidden folders are skipped.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path, suffix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    open.push(path);
                }
            } else if name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
