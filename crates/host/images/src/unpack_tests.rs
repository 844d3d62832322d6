//! Layers as builders write them and as an attacker would.
//!
//! In: tars made here. Out: trees on a real file system, looked at with the kernel's own eyes. Needs root, for
//! devices, owners and the overlay mount.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// Builds tars without the checks the `tar` crate makes for honest users.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Tar {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &str) -> Tar {
        self.entry(EntryType::Regular, path, "", 0o644, data.as_bytes())
    }

    fn folder(self, path: &str) -> Tar {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Tar {
        self.entry(EntryType::Symlink, path, to, 0o777, b"")
    }

    fn hard_link(self, path: &str, to: &str) -> Tar {
        self.entry(EntryType::Link, path, to, 0o644, b"")
    }

    fn xattr(mut self, key: &str, value: &[u8]) -> Tar {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{key}").as_str(), value)]).unwrap();
        self
    }

    fn unpack(self) -> Result<Tree, LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("layer");
        fs::create_dir(&inside).unwrap();
        let bytes = self.0.into_inner().unwrap();
        let outcome = unpack(&bytes[..], &inside);
        let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["layer"], "something was made beside the layer");
        outcome.map(|bytes| Tree { dir, bytes })
    }
}

struct Tree {
    dir: TempDir,
    bytes: u64,
}

impl Tree {
    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("layer").join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn meta(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.at(path)).unwrap()
    }

    fn xattr(&self, path: &str, key: &str) -> Option<Vec<u8>> {
        let mut buffer = [0u8; 256];
        let n = rustix::fs::lgetxattr(self.at(path), key, &mut buffer).ok()?;
        Some(buffer[..n].to_vec())
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let meta = self.meta(path);
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        self.xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
    }
}

#[test]
fn every_kind_of_file_keeps_owner_mode_and_time() {
    let tree = Tar::new()
        .folder("./")
        .folder("bin/")
        .entry(EntryType::Regular, "bin/su", "", 0o4755, b"setuid")
        .hard_link("bin/su2", "bin/su")
        .symlink("sh", "bin/su")
        .entry(EntryType::Fifo, "pipe", "", 0o666, b"")
        .entry(EntryType::Char, "null", "", 0o666, b"")
        .entry(EntryType::Directory, "tmp", "", 0o1777, b"")
        .unpack()
        .unwrap();
    assert_eq!(tree.bytes, 6);
    let su = tree.meta("bin/su");
    assert_eq!(
        (su.uid(), su.gid(), su.mode() & 0o7777, su.mtime(), su.nlink()),
        (1000, 1001, 0o4755, 1_000_000, 2)
    );
    assert_eq!(tree.meta("bin/su2").ino(), su.ino());
    assert_eq!(fs::read_link(tree.at("sh")).unwrap(), Path::new("bin/su"));
    assert_eq!((tree.meta("sh").uid(), tree.meta("sh").mtime()), (1000, 1_000_000));
    let pipe = tree.meta("pipe");
    assert!(pipe.file_type().is_fifo());
    // The umask must not have a say.
    assert_eq!((pipe.mode() & 0o7777, pipe.uid()), (0o666, 1000));
    let null = tree.meta("null");
    assert_eq!((null.file_type().is_char_device(), null.rdev(), null.mode() & 0o777), (true, 0x103, 0o666));
    assert_eq!((tree.meta("tmp").mode() & 0o7777, tree.meta("bin").mtime()), (0o1777, 1_000_000));
    assert_eq!((tree.meta(".").uid(), tree.meta(".").mtime()), (1000, 1_000_000));
}

#[test]
fn attributes_are_kept_byte_for_byte_after_the_owner_changed() {
    // A capability set with a line end in it, which a careless parser cuts off.
    let capability = [1, 0, 0, 2, 0x0a, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tree = Tar::new()
        .xattr("security.capability", &capability)
        .file("ping", "x")
        .xattr("user.note", b"a\nb")
        .folder("dir")
        .unpack()
        .unwrap();
    assert_eq!(tree.xattr("ping", "security.capability").unwrap(), capability);
    assert_eq!(tree.xattr("dir", "user.note").unwrap(), b"a\nb");
}

#[test]
fn an_image_cannot_forge_the_overlays_own_attributes() {
    let tree = Tar::new().xattr("trusted.overlay.redirect", b"/etc").folder("dir").unpack().unwrap();
    assert_eq!(tree.xattr("dir", "trusted.overlay.redirect"), None);
}

#[test]
fn whiteouts_become_devices_and_opaque_attributes() {
    let tree = Tar::new()
        .file("etc/.wh.passwd", "")
        .file("var/.wh..wh..opq", "")
        .file(".wh..wh.plnk/x", "")
        .file(".wh..wh.aufs", "")
        .unpack()
        .unwrap();
    assert!(tree.is_whiteout("etc/passwd"));
    assert!(tree.is_opaque("var"));
    assert!(!tree.at(".wh..wh.aufs").exists());
    assert_eq!(tree.meta("etc").permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_whiteout_hides_lower_layers_only_whatever_the_order() {
    let tree = Tar::new()
        .folder("a/")
        .file("a/new", "1")
        .file(".wh.a", "")
        .file(".wh.b", "")
        .folder("b/")
        .file(".wh.c", "")
        .file("c/new", "2")
        .file("d", "3")
        .file(".wh.d", "")
        .file(".wh.e", "")
        .file("e", "4")
        .unpack()
        .unwrap();
    for dir in ["a", "b", "c"] {
        assert!(tree.is_opaque(dir), "{dir}");
    }
    assert_eq!(
        [tree.text("a/new"), tree.text("c/new"), tree.text("d"), tree.text("e")],
        ["1", "2", "3", "4"]
    );
}

#[test]
fn later_entries_replace_earlier_ones_and_folders_merge() {
    let tree = Tar::new()
        .file("x", "old")
        .file("x", "new")
        .folder("d/")
        .file("d/kept", "1")
        .folder("d/")
        .file("f/inner", "gone")
        .file("f", "file now")
        .symlink("l", "x")
        .folder("l")
        .file("l/in", "2")
        .unpack()
        .unwrap();
    assert_eq!(
        [tree.text("x"), tree.text("d/kept"), tree.text("f"), tree.text("l/in")],
        ["new", "1", "file now", "2"]
    );
}

#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let tree = Tar::new()
        .symlink("up", "../../../../../../../../tmp")
        .file("up/a", "1")
        .symlink("abs", "/etc")
        .file("abs/b", "2")
        .symlink("usr-lib", "usr/lib")
        .folder("usr/lib")
        .file("usr-lib/c", "3")
        .file("/absolute", "4")
        .file("x/../y", "5")
        .hard_link("hard", "/absolute")
        .unpack();
    // `up/a` asks for a folder behind a link to nothing: an error, as the link is in the way.
    assert!(matches!(tree, Err(LayerError::File(_))), "dangling parent");
    let tree = Tar::new()
        .folder("tmp")
        .folder("etc")
        .symlink("up", "../../../../../../../../tmp")
        .file("up/a", "1")
        .symlink("abs", "/etc")
        .file("abs/b", "2")
        .file("/absolute", "4")
        .file("x/../y", "5")
        .hard_link("hard", "/absolute")
        .unpack()
        .unwrap();
    assert_eq!(
        [tree.text("tmp/a"), tree.text("etc/b"), tree.text("hard"), tree.text("y")],
        ["1", "2", "4", "5"]
    );
    assert!(!Path::new("/tmp/a").exists() && !Path::new("/etc/b").exists());
}

#[test]
fn a_file_is_never_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let target = victim.to_str().unwrap();
    let tree = Tar::new().symlink("l", target).file("l", "evil").unpack().unwrap();
    assert_eq!((tree.text("l").as_str(), fs::read_to_string(&victim).unwrap().as_str()), ("evil", "safe"));
    assert!(Tar::new().hard_link("h", target).unpack().is_err(), "hard link to a file of the host");
    let through = Tar::new().symlink("d", dir.path().to_str().unwrap()).hard_link("h", "d/victim").unpack();
    assert!(through.is_err(), "hard link through a link to the host");
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../x", "a/../../x", "..", "/../x"] {
        let error = Tar::new().file(path, "evil").unpack().map(|_| ()).unwrap_err();
        assert!(matches!(&error, LayerError::Entry { path: p, .. } if p == path), "{path}: {error}");
    }
    assert!(Tar::new().file("f", "").hard_link("h", "../../etc/passwd").unpack().is_err());
    for path in [".wh.", ".wh...", "a/.wh.."] {
        assert!(Tar::new().file(path, "").unpack().is_err(), "{path}");
    }
    assert_eq!(normal("d/".repeat(257).as_bytes()), Err("path is too deep"));
    let deep = "d/".repeat(40);
    assert!(Tar::new().file(&format!("{deep}f"), "ok").unpack().is_ok());
}

#[test]
fn damaged_owners_and_cut_files_are_refused() {
    let mut header = Header::new_gnu();
    header.set_path("f").unwrap();
    header.set_uid(u64::from(u32::MAX));
    header.set_gid(0);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&header.as_bytes()[..], dir.path()).is_err(), "the id that means none");
    let bytes = Tar::new().file("g", "content").0.into_inner().unwrap();
    assert!(matches!(unpack(&bytes[..515], dir.path()), Err(LayerError::Archive(_))));
}

#[test]
fn an_overlay_of_two_layers_shows_the_merged_tree() {
    let lower = Tar::new()
        .folder("etc")
        .file("etc/passwd", "p")
        .file("etc/keep", "k")
        .folder("var")
        .file("var/old", "o")
        .unpack()
        .unwrap();
    let upper = Tar::new()
        .file("etc/.wh.passwd", "")
        .folder("var")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "n")
        .unpack()
        .unwrap();
    let mount = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t overlay overlay -o ro,lowerdir={}:{} {mnt} && cd {mnt} && find . -type f | sort",
        upper.at("").display(),
        lower.at("").display(),
        mnt = mount.path().display(),
    );
    // A mount namespace of its own: nothing is left to unmount.
    let out = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert!(out.status.success(), "overlay mount failed: {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "./etc/keep\n./var/new\n");
}
