//! What archives of a tree hold, and what they leave out.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::archive::Archive;

/// `name kind link content` of each entry, in order.
fn entries(bytes: &[u8]) -> Vec<String> {
    let mut archive = Archive::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let mut content = String::new();
        archive.read_to_string(&mut content).unwrap();
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        found.push(format!("{} {:?} {link} {content}", entry.display(), entry.kind).trim_end().to_owned());
    }
    found
}

fn packed(folder: &Path, what: What<'_>, leave_out: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::new();
    let folder = fs::File::open(folder).unwrap();
    pack(folder.as_fd(), what, leave_out, &mut out).map(|()| out)
}

fn check(folder: &Path, what: What<'_>, expect: &[&str]) {
    assert_eq!(entries(&packed(folder, what, &|_| false).unwrap()), expect, "{what:?}");
}

fn world() -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let at = |path: &str| world.path().join(path);
    fs::create_dir_all(at("tree/sub/empty")).unwrap();
    fs::write(at("tree/a"), "aa").unwrap();
    fs::hard_link(at("tree/a"), at("tree/sub/same")).unwrap();
    fs::write(at("secret"), "secret").unwrap();
    symlink("../secret", at("tree/link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("tree/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    world
}

#[test]
fn a_tree_is_packed_in_order_and_links_are_not_followed() {
    let world = world();
    let tree = world.path().join("tree");
    let below = [
        "a File  aa",
        "link Symlink ../secret",
        "pipe Fifo",
        "sub/ Folder",
        "sub/empty/ Folder",
        "sub/same HardLink a",
    ];
    check(&tree, What::Tree(b""), &below);
    let named: Vec<String> = std::iter::once("t/ Folder".to_owned())
        .chain(below.map(|line| format!("t/{line}").replace("HardLink a", "HardLink t/a")))
        .collect();
    check(&tree, What::Tree(b"t"), &named.iter().map(String::as_str).collect::<Vec<_>>());
    check(&tree, What::One(b"link"), &["link Symlink ../secret"]);
    check(&tree, What::One(b"a"), &["a File  aa"]);
    assert!(packed(&tree, What::One(b"none"), &|_| false).is_err());
}

#[test]
fn the_root_keeps_its_slash() {
    let world = tempfile::tempdir().unwrap();
    fs::write(world.path().join("a"), "x").unwrap();
    check(world.path(), What::Tree(b"/"), &["/ Folder", "/a File  x"]);
}

#[test]
fn what_is_left_out_goes_with_all_below_it() {
    let world = world();
    let bytes =
        packed(&world.path().join("tree"), What::Tree(b""), &|path| path == b"sub" || path == b"pipe")
            .unwrap();
    assert_eq!(entries(&bytes), ["a File  aa", "link Symlink ../secret"]);
}

#[test]
fn an_empty_layer_is_two_empty_blocks() {
    let world = tempfile::tempdir().unwrap();
    assert_eq!(packed(world.path(), What::Layer, &|_| false).unwrap(), [0; 1024]);
}

#[test]
fn a_layer_says_what_was_deleted() {
    let world = tempfile::tempdir().unwrap();
    let at = |path: &str| world.path().join(path);
    fs::create_dir(at("etc")).unwrap();
    let device = |path: &str, device| {
        rustix::fs::mknodat(rustix::fs::CWD, at(path), FileType::CharacterDevice, Mode::empty(), device)
    };
    if device("etc/gone", 0).is_err() {
        eprintln!("!!! NOT RUN: device nodes need root");
        return;
    }
    device("null", rustix::fs::makedev(1, 3)).unwrap();
    let set = rustix::fs::lsetxattr(at("etc"), OPAQUE, b"y", rustix::fs::XattrFlags::empty());
    set.unwrap();
    check(
        world.path(),
        What::Layer,
        &["etc/ Folder", "etc/.wh..wh..opq File", "etc/.wh.gone File", "null CharDevice"],
    );
    // Outside of a layer it is nothing but a device.
    check(world.path(), What::Tree(b""), &["etc/ Folder", "etc/gone CharDevice", "null CharDevice"]);
}

#[test]
fn a_file_that_shrinks_is_filled_up() {
    let world = tempfile::tempdir().unwrap();
    fs::write(world.path().join("a"), vec![b'x'; 300_000]).unwrap();
    /// Cuts the file as soon as its header was written.
    struct Cutting<'a>(Vec<u8>, &'a Path);
    impl Write for Cutting<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                fs::OpenOptions::new().write(true).open(self.1)?.set_len(10)?;
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let path = world.path().join("a");
    let mut out = Cutting(Vec::new(), &path);
    let folder = fs::File::open(world.path()).unwrap();
    pack(folder.as_fd(), What::Tree(b""), &|_| false, &mut out).unwrap();
    let mut archive = Archive::new(&out.0[..]);
    archive.next_entry().unwrap().unwrap();
    let mut content = Vec::new();
    archive.read_to_end(&mut content).unwrap();
    assert_eq!((content.len(), &content[..10], content[10]), (300_000, &[b'x'; 10][..], 0));
    assert!(archive.next_entry().unwrap().is_none());
}

#[test]
fn a_writer_that_is_gone_ends_the_work() {
    let world = world();
    let folder = fs::File::open(world.path()).unwrap();
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = pack(folder.as_fd(), What::Tree(b""), &|_| false, Gone).unwrap_err();
    assert!(matches!(error, PackError::Write(_)), "{error}");
}
