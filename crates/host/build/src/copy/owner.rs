//! `--chown`: numbers for users and groups by the files of the image.
//!
//! In: `user[:group]`, the image's tree. Out: numbers, or why there are none, in Docker's words.
//! Source: moby, `builder/dockerfile/internals_linux.go`.

use std::io::Read;

use images::{FileKind, View};

/// Longest file of users or groups that is read. Chosen: a hundred thousand users.
const MAX_FILE: u64 = 8 << 20;

/// Whom files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The numbers of `chown`. A user alone is also the name of the group.
pub(crate) fn resolve(chown: &str, tree: &View) -> Result<Owner, String> {
    let failed = |text: String| format!("unable to convert uid/gid chown string to host mapping: {text}");
    let (user, group) = match chown.split_once(':') {
        Some((user, group)) if !user.is_empty() && !group.is_empty() => (user, group),
        Some(_) => return Err(failed(format!("invalid chown string format: {chown}"))),
        None => (chown, chown),
    };
    let uid = number(user, &file(tree, "etc/passwd"))
        .ok_or_else(|| failed(format!("can't find uid for user {user}: no such user: {user}")))?;
    let gid = number(group, &file(tree, "etc/group"))
        .ok_or_else(|| failed(format!("can't find gid for group {group}: no such group: {group}")))?;
    Ok(Owner { uid, gid })
}

/// A number itself, or the third field of the line that begins with the name.
fn number(name: &str, file: &str) -> Option<u32> {
    // Source: moby/sys/user, `maxID`.
    let in_range = |id: &u32| *id <= i32::MAX as u32;
    if let Ok(id) = name.parse::<u32>() {
        return Some(id).filter(in_range);
    }
    let mut lines = file.lines().map(|line| line.trim().split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.first() == Some(&name))?;
    line.get(2)?.parse::<u32>().ok().filter(in_range)
}

/// A text of the image; empty when it is not there.
fn file(tree: &View, path: &str) -> String {
    let found = tree.locate(path.as_bytes(), true).ok().and_then(|located| located.found);
    let Some(found) = found.filter(|found| found.meta.kind == FileKind::File) else { return String::new() };
    let mut bytes = Vec::new();
    // A file that cannot be read names nobody.
    let _is_read = tree.file(&found).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).is_ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_by_the_images_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\nweb:x:33:44::/:\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:55:\n").unwrap();
        let tree = View::open(&[dir.path().to_owned()]).unwrap();
        for (chown, expect) in [("1:2", (1, 2)), ("7", (7, 7)), ("web", (33, 55)), ("web:0", (33, 0))] {
            let owner = resolve(chown, &tree).unwrap();
            assert_eq!((owner.uid, owner.gid), expect, "{chown}");
        }
        for (chown, expect) in [
            ("nobody", "can't find uid for user nobody: no such user: nobody"),
            ("1:x", "can't find gid for group x"),
            (":1", "invalid chown string format"),
            ("4294967295", "can't find uid"),
        ] {
            let error = resolve(chown, &tree).unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
    }
}
