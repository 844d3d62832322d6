//! `COPY` and `ADD`: which files go where, as the tar of a layer.
//!
//! In: trees to copy from, the tree of the image so far, names. Out: a digest of what is copied, for the cache, and what
//! writes the layer. Links in either tree lead nowhere out of it; links that are copied stay links.
//! Source: moby, `builder/dockerfile/{copy,internals}.go`.

mod hash;
mod owner;
mod target;

use std::sync::Arc;

use dockerfile::Glob;
use images::{FileKind, Found, View};

pub(crate) use self::hash::{joint, of as digest};
pub(crate) use self::owner::{Owner, resolve};
pub(crate) use self::target::{Job, folder, layer};

/// One thing to copy.
pub(crate) struct Item {
    pub(crate) tree: Arc<View>,
    pub(crate) found: Found,
    /// Its name as it was asked for, which is that of a link that leads to it.
    pub(crate) name: Vec<u8>,
    /// `file:` or `dir:` and the digest of what it holds.
    pub(crate) digest: String,
    /// Whether an archive is unpacked.
    pub(crate) unpacks: bool,
    /// Other permission bits than its own, for what was fetched.
    pub(crate) mode: Option<u32>,
    /// Another time than its own.
    pub(crate) mtime: Option<i64>,
}

/// What `source` means in a tree: one thing, or several if it is a pattern. The error is in Docker's words.
pub(crate) fn find(
    tree: &Arc<View>,
    source: &str,
    unpacks: bool,
    is_context: bool,
) -> Result<Vec<Item>, String> {
    check_inside(source)?;
    let path = source.trim_start_matches('/');
    let path = path.strip_prefix("./").unwrap_or(path);
    let text = |e: std::io::Error| format!("stat {path}: {}", e.kind());
    if !Glob::has_wildcards(path) {
        let located = tree.locate(path.as_bytes(), true).map_err(text)?;
        let missing = || match is_context {
            true => format!(
                "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
            ),
            false => format!("stat {path}: file does not exist"),
        };
        let found = located.found.ok_or_else(missing)?;
        return Ok(vec![item(tree, found, path.as_bytes(), unpacks).map_err(text)?]);
    }
    let glob = Glob::parse(path, false).map_err(|e| e.to_string())?;
    let mut items = Vec::new();
    let root = tree.root().map_err(text)?;
    matching(tree, &root, &glob, &mut |found| {
        let name = found.path.clone();
        // What a link leads to is copied, as if it had been named itself.
        if let Some(target) = tree.locate(&name, true)?.found {
            items.push(item(tree, target, &name, unpacks)?);
        }
        Ok(())
    })
    .map_err(text)?;
    Ok(items)
}

fn item(tree: &Arc<View>, found: Found, name: &[u8], unpacks: bool) -> std::io::Result<Item> {
    let digest = hash::of(tree, &found)?;
    Ok(Item { tree: Arc::clone(tree), found, name: name.to_vec(), digest, unpacks, mode: None, mtime: None })
}

/// Visits everything that fits, in the order of names.
fn matching(
    tree: &View,
    folder: &Found,
    glob: &Glob,
    visit: &mut dyn FnMut(&Found) -> std::io::Result<()>,
) -> std::io::Result<()> {
    for name in tree.names(folder)? {
        let Some(found) = tree.look(folder, &name)? else { continue };
        if std::str::from_utf8(&found.path).is_ok_and(|path| glob.fits(path)) {
            visit(&found)?;
        }
        if found.meta.kind == FileKind::Folder {
            matching(tree, &found, glob, visit)?;
        }
    }
    Ok(())
}

/// Refuses what leads out by its name alone. Source: moby 28, `remotecontext`, observed.
fn check_inside(source: &str) -> Result<(), String> {
    let mut depth = 0usize;
    for part in source.trim_start_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Err(format!("forbidden path outside the build context: {source} ()")),
            },
            _ => depth += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
