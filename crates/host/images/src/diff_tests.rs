//! What a container changed comes back from the archive as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, XattrFlags, mknodat, setxattr};

use super::*;
use crate::archive::Archive;

/// The names in the layer that `upper` is on `lower`.
fn names(upper: &Path, lower: &[PathBuf]) -> Vec<String> {
    let mut bytes = Vec::new();
    diff(upper.to_owned(), lower.to_vec())(&mut bytes).unwrap();
    let (mut archive, mut names) = (Archive::new(&bytes[..]), Vec::new());
    while let Some(entry) = archive.next_entry().unwrap() {
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        names.push(entry.display() + if link.is_empty() { "" } else { " -> " } + &link);
    }
    names
}

fn check(make: impl Fn(&Path, &Path), expect: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
    for folder in ["upper/etc", "lower/etc", "lower/a/b", "lower/a/c"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    make(&upper, &lower);
    assert_eq!(names(&upper, &[lower]), expect);
}

fn whiteout(path: PathBuf) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).expect("tests run as root");
}

#[test]
fn a_folder_that_was_only_copied_up_is_no_change() {
    check(|_, _| {}, &[]);
    check(|upper, _| fs::write(upper.join("etc/resolv.conf"), "").unwrap(), &[]);
    check(|upper, _| fs::create_dir(upper.join("dev")).unwrap(), &[]);
    check(|upper, _| fs::write(upper.join("etc/hosts"), "x").unwrap(), &["etc/", "etc/hosts"]);
    let chmod = |upper: &Path, _: &Path| {
        fs::set_permissions(upper.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    };
    check(chmod, &["etc/"]);
}

#[test]
fn what_is_gone_is_marked() {
    let gone = |upper: &Path, _: &Path| {
        fs::create_dir(upper.join("a")).unwrap();
        whiteout(upper.join("a/b"));
    };
    check(gone, &["a/", "a/.wh.b"]);
}

#[test]
fn a_folder_made_anew_hides_the_old_one_and_all_in_it_counts() {
    let anew = |upper: &Path, _: &Path| {
        fs::create_dir_all(upper.join("a/b")).unwrap();
        setxattr(upper.join("a"), OPAQUE, b"y", XattrFlags::empty()).expect("tests run as root");
    };
    check(anew, &["a/", "a/.wh..wh..opq", "a/b/"]);
}

#[test]
fn links_are_kept_and_never_followed() {
    let links = |upper: &Path, _: &Path| {
        fs::write(upper.join("f"), "x").unwrap();
        fs::hard_link(upper.join("f"), upper.join("g")).unwrap();
        symlink("/etc", upper.join("s")).unwrap();
    };
    check(links, &["f", "g -> f", "s -> /etc"]);
}
