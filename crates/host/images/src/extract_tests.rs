//! Archives that are put over a tree, also such as are made to harm.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::archive::Kind;
use crate::tar_header::Header;

/// A container's root in a temporary folder, and beside it `outside`, which must stay as it is.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/srv")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/file"), "untouched").unwrap();
        World { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn extract(
        &self,
        path: &str,
        entries: &[Header<'_>],
        options: &ExtractOptions,
    ) -> Result<(), LayerError> {
        let root = fs::File::open(self.at("")).unwrap();
        extract(&tar(entries)[..], root.as_fd(), path.as_bytes(), options)
    }

    fn nothing_left_the_root(&self) {
        let outside = self.folder.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        assert_eq!(fs::metadata(outside.join("file")).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2);
    }
}

fn entry<'a>(kind: Kind, name: &'a str, link: &'a str) -> Header<'a> {
    let owner = fs::metadata(".").map(|m| (m.uid(), m.gid())).unwrap();
    Header {
        kind,
        name: name.as_bytes(),
        link: link.as_bytes(),
        mode: 0o640,
        uid: owner.0,
        gid: owner.1,
        mtime: 1_000_000_000,
        size: if kind == Kind::File { 2 } else { 0 },
        device: (1, 3),
        xattrs: &[],
    }
}

/// Every file's content is `hi`.
fn tar(entries: &[Header<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for header in entries {
        header.append(&mut bytes);
        if header.kind == Kind::File {
            bytes.extend_from_slice(b"hi");
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

#[test]
fn files_land_in_the_folder_with_their_attributes() {
    let world = World::new();
    let folder = Header { mode: 0o750, ..entry(Kind::Folder, "./sub/", "") };
    let entries = [
        entry(Kind::Folder, "./", ""),
        folder,
        entry(Kind::File, "/sub/a", ""),
        entry(Kind::HardLink, "b", "sub/a"),
    ];
    world.extract("/srv", &entries, &ExtractOptions::default()).unwrap();
    assert_eq!(fs::read_to_string(world.at("srv/sub/a")).unwrap(), "hi");
    let (a, b) = (fs::metadata(world.at("srv/sub/a")).unwrap(), fs::metadata(world.at("srv/b")).unwrap());
    assert_eq!((a.mode() & 0o7777, a.mtime(), a.ino()), (0o640, 1_000_000_000, b.ino()));
    let sub = fs::metadata(world.at("srv/sub")).unwrap();
    assert_eq!((sub.mode() & 0o7777, sub.mtime()), (0o750, 1_000_000_000));
    // The folder itself stays what it was.
    assert_ne!(fs::metadata(world.at("srv")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn what_lies_beside_stays() {
    let world = World::new();
    fs::create_dir(world.at("srv/sub")).unwrap();
    fs::write(world.at("srv/sub/mine"), "mine").unwrap();
    let entries = [entry(Kind::Folder, "sub/", ""), entry(Kind::File, "sub/a", "")];
    world.extract("/srv", &entries, &ExtractOptions::default()).unwrap();
    assert_eq!(fs::read_to_string(world.at("srv/sub/mine")).unwrap(), "mine");
}

#[test]
fn nothing_leaves_the_root() {
    let outside = |world: &World| world.folder.path().join("outside").display().to_string();
    let file = |name: &'static str| entry(Kind::File, name, "");
    // Names that climb are refused.
    for name in ["../x", "a/../../x", "../outside/file"] {
        let world = World::new();
        assert!(world.extract("/srv", &[file(name)], &ExtractOptions::default()).is_err(), "{name}");
        world.nothing_left_the_root();
    }
    // Links of the archive, and then files through them, end inside.
    for target in ["../../outside", "../../../../../../outside", "OUTSIDE"] {
        let world = World::new();
        let absolute = outside(&world);
        let target = if target == "OUTSIDE" { &absolute } else { target };
        let entries = [entry(Kind::Symlink, "l", target), file("l/file"), file("l/new")];
        // Whether it works or not is the archive's problem.
        let _ = world.extract("/srv", &entries, &ExtractOptions::default());
        world.nothing_left_the_root();
        // Links that are there already, on the way to the folder and as the folder itself.
        let world = World::new();
        let absolute = outside(&world);
        let target = if target.starts_with("..") { target } else { &absolute };
        symlink(target, world.at("srv/l")).unwrap();
        for path in ["/srv/l", "/srv/l/deep", "/srv"] {
            let _ = world.extract(path, &[file("file"), file("l/file")], &ExtractOptions::default());
            world.nothing_left_the_root();
        }
    }
    // Hard links to what is outside.
    for target in ["../../outside/file", "../outside/file", "/etc/passwd"] {
        let world = World::new();
        let entries = [entry(Kind::HardLink, "h", target)];
        assert!(world.extract("/srv", &entries, &ExtractOptions::default()).is_err(), "{target}");
        world.nothing_left_the_root();
    }
    // A link in place of a file, and then the file.
    let world = World::new();
    let absolute = outside(&world) + "/file";
    symlink(&absolute, world.at("srv/file")).unwrap();
    world.extract("/srv", &[file("file")], &ExtractOptions::default()).unwrap();
    world.nothing_left_the_root();
    assert_eq!(fs::read_to_string(world.at("srv/file")).unwrap(), "hi");
}

#[test]
fn kinds_are_kept_if_asked_for() {
    let keep = ExtractOptions { keeps_kinds: true, ..ExtractOptions::default() };
    let check = |kind, expect: &str| {
        let world = World::new();
        fs::create_dir(world.at("srv/folder")).unwrap();
        fs::write(world.at("srv/file"), "").unwrap();
        let name = if kind == Kind::Folder { "file" } else { "folder" };
        let error = world.extract("/srv", &[entry(kind, name, "")], &keep).unwrap_err();
        assert_eq!(error.to_string(), expect);
        world.extract("/srv", &[entry(kind, name, "")], &ExtractOptions::default()).unwrap();
        assert_eq!(world.at("srv").join(name).is_dir(), kind == Kind::Folder);
    };
    check(Kind::File, "cannot overwrite directory \"/srv/folder\" with non-directory \"/srv\"");
    check(Kind::Folder, "cannot overwrite non-directory \"/srv/file\" with directory \"/srv\"");
}

#[test]
fn an_owner_that_is_given_counts() {
    let world = World::new();
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("!!! NOT RUN: giving files away needs root");
        return;
    }
    let options = ExtractOptions { owner: Some((33, 34)), ..ExtractOptions::default() };
    let device = Header { mode: 0o600, ..entry(Kind::CharDevice, "null", "") };
    world.extract("/srv", &[entry(Kind::File, "a", ""), device], &options).unwrap();
    for name in ["srv/a", "srv/null"] {
        let found = fs::metadata(world.at(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (33, 34), "{name}");
    }
    assert_eq!(fs::metadata(world.at("srv/null")).unwrap().permissions().mode() & 0o7777, 0o600);
}
