//! Digests of what is copied: the same for the same names, owners, modes and content, whatever the times.
//!
//! In: a file or folder of a tree. Out: `file:HEX` or `dir:HEX`, as histories show it.
//! Source: moby, `builder/remotecontext/tarsum.go`, for what counts.

use std::io::{self, Read};

use images::{FileKind, Found, View, digest_of};

use super::Item;

/// Deepest folder; a path of that depth fits no layer.
const MAX_DEPTH: usize = 256;

/// The digest of a file, or of a folder with all in it.
pub(crate) fn of(tree: &View, found: &Found) -> io::Result<String> {
    if found.meta.kind != FileKind::Folder {
        return Ok(format!("file:{}", one(tree, found, b"")?));
    }
    let mut all = Vec::new();
    below(tree, found, b"", 0, &mut all)?;
    all.sort();
    Ok(format!("dir:{}", digest_of(all.join(",").as_bytes())?.hex()))
}

/// The digest of several things. Source: moby, `getSourceHashFromInfos`.
pub(crate) fn joint(items: &[Item]) -> io::Result<String> {
    if let [only] = items {
        return Ok(only.digest.clone());
    }
    let all: Vec<&str> = items.iter().map(|item| item.digest.as_str()).collect();
    Ok(format!("multi:{}", digest_of(all.join(",").as_bytes())?.hex()))
}

fn below(tree: &View, folder: &Found, name: &[u8], depth: usize, all: &mut Vec<String>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "path is too deep"));
    }
    for child in tree.names(folder)? {
        let Some(found) = tree.look(folder, &child)? else { continue };
        let name = images::join(name, &child);
        all.push(one(tree, &found, &name)?);
        if found.meta.kind == FileKind::Folder {
            below(tree, &found, &name, depth + 1, all)?;
        }
    }
    Ok(())
}

/// Header and content of one thing.
fn one(tree: &View, found: &Found, name: &[u8]) -> io::Result<String> {
    let meta = &found.meta;
    let mut header = format!("{:?} {:o} {} {} {:?} ", meta.kind, meta.mode, meta.uid, meta.gid, meta.device);
    header.push_str(&format!("{} {:?} ", name.len(), tree.xattrs(found)?));
    let mut header = header.into_bytes();
    header.extend(name);
    let digest = match meta.kind {
        FileKind::File => digest_of(io::Cursor::new(header).chain(tree.file(found)?)),
        FileKind::Symlink => digest_of(io::Cursor::new(header).chain(&tree.link(found)?[..])),
        _ => digest_of(&header[..]),
    };
    Ok(digest?.hex().to_owned())
}
