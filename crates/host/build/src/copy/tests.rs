//! What is copied lands where it should, and nowhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use images::{Archive, ArchiveWriter, Entry, EntryKind, Meta, plain};

use super::*;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["context/sub/deep", "image/etc", "image/usr/bin", "image/data"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let world = World { dir };
        fs::write(world.context("a.txt"), "a").unwrap();
        fs::write(world.context("b.txt"), "b").unwrap();
        fs::write(world.context("sub/c.txt"), "c").unwrap();
        fs::write(world.context("sub/deep/d"), "d").unwrap();
        symlink("usr/bin", world.image("bin")).unwrap();
        symlink("../../../outside", world.image("etc/out")).unwrap();
        fs::write(world.image("etc/file"), "old").unwrap();
        fs::write(world.dir.path().join("outside"), "secret").unwrap();
        fs::set_permissions(world.image("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        world
    }

    fn context(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("context").join(path)
    }

    fn image(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("image").join(path)
    }

    fn tree(&self, path: &str) -> Arc<View> {
        Arc::new(View::open(&[self.dir.path().join(path)]).unwrap())
    }

    /// Names, modes and owners of the layer.
    fn copy(&self, sources: &[&str], to: &str, change: impl Fn(&mut Job)) -> Result<Vec<String>, String> {
        let tree = self.tree("context");
        let mut items = Vec::new();
        for source in sources {
            items.extend(find(&tree, source, true, true)?);
        }
        let below = View::open(&[self.image("")]).unwrap();
        let owner = Some(Owner { uid: 0, gid: 0 });
        let mut job = Job { items, below, destination: to.to_owned(), owner, mode: None };
        change(&mut job);
        let mut bytes = Vec::new();
        layer(job)(&mut bytes).map_err(|e| e.to_string())?;
        let (mut archive, mut names) = (Archive::new(&bytes[..]), Vec::new());
        while let Some(entry) = archive.next_entry().unwrap() {
            names.push(format!("{} {:o} {}", String::from_utf8_lossy(&entry.path), entry.mode, entry.uid));
        }
        Ok(names)
    }

    fn check(&self, sources: &[&str], to: &str, expect: &[&str]) {
        assert_eq!(self.copy(sources, to, |_| {}).unwrap(), expect, "{sources:?} {to}");
    }

    fn refused(&self, sources: &[&str], to: &str, expect: &str) {
        let error = self.copy(sources, to, |_| {}).unwrap_err();
        assert!(error.contains(expect), "{sources:?} {to}: {error}");
    }
}

#[test]
fn files_and_folders_land_where_docker_puts_them() {
    let world = World::new();
    world.check(&["a.txt"], "/x", &["x 644 0"]);
    world.check(&["a.txt"], "/data", &["data/ 755 0", "data/a.txt 644 0"]);
    world.check(&["a.txt"], "/new/", &["new/ 755 0", "new/a.txt 644 0"]);
    world.check(&["*.txt"], "/new/", &["new/ 755 0", "new/a.txt 644 0", "new/b.txt 644 0"]);
    world.check(&["sub"], "/n", &["n/ 755 0", "n/c.txt 644 0", "n/deep/ 755 0", "n/deep/d 644 0"]);
    world.check(&["./sub/c.txt"], "/n/m/x", &["n/ 755 0", "n/m/ 755 0", "n/m/x 644 0"]);
}

#[test]
fn folders_on_the_way_stay_as_they_are_and_links_are_followed_inside() {
    let world = World::new();
    world.check(&["a.txt"], "/etc/x", &["etc/ 700 0", "etc/x 644 0"]);
    world.check(&["a.txt"], "/bin/x", &["usr/ 755 0", "usr/bin/ 755 0", "usr/bin/x 644 0"]);
    world.check(&["a.txt"], "/etc/out", &["outside 644 0"]);
}

#[test]
fn owner_and_mode_are_those_that_were_asked_for() {
    let world = World::new();
    let made = world.copy(&["sub"], "/n/", |job| {
        job.owner = Some(Owner { uid: 7, gid: 8 });
        job.mode = Some(0o750);
    });
    assert_eq!(made.unwrap(), ["n/ 755 7", "n/c.txt 750 7", "n/deep/ 750 7", "n/deep/d 750 7"]);
}

#[test]
fn what_is_missing_or_leads_out_is_refused() {
    let world = World::new();
    world.refused(
        &["nope"],
        "/x",
        "file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
    );
    world.refused(&["../outside"], "/x", "forbidden path outside the build context: ../outside ()");
    world.refused(&["sub/../../outside"], "/x", "forbidden path");
    world.refused(&["sub"], "/etc/file", "cannot copy to non-directory: /etc/file");
    symlink("../outside", world.context("link")).unwrap();
    symlink("/etc", world.context("absolute")).unwrap();
    world.refused(&["link"], "/x", "file not found in build context");
    world.refused(&["absolute"], "/x", "file not found in build context");
    assert!(world.copy(&["z*"], "/x", |_| {}).unwrap().is_empty(), "nothing fits");
}

fn archive(path: &Path, entries: &[(EntryKind, &str, &str)]) {
    let meta = Meta { kind: FileKind::File, mode: 0o644, uid: 0, gid: 0, size: 0, mtime: 0, device: (0, 0) };
    let mut writer = ArchiveWriter::new(Vec::new());
    for (kind, path, link) in entries {
        let entry = Entry { path: (*path).into(), link: (*link).into(), ..plain(*kind, &meta) };
        writer.entry(&entry).unwrap();
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
}

#[test]
fn an_archive_is_unpacked_inside_its_folder() {
    let world = World::new();
    archive(
        &world.context("good.tar"),
        &[(EntryKind::File, "f", ""), (EntryKind::HardLink, "g", "f"), (EntryKind::Symlink, "s", "/etc")],
    );
    world.check(&["good.tar"], "/n", &["n/ 755 0", "n/f 644 0", "n/g 644 0", "n/s 644 0"]);
    archive(&world.context("bad.tar"), &[(EntryKind::File, "../../evil", "")]);
    world.refused(&["bad.tar"], "/n", "invalid entry \"../../evil\"");
    archive(&world.context("hard.tar"), &[(EntryKind::HardLink, "g", "../etc/file")]);
    world.refused(&["hard.tar"], "/n", "invalid entry");
    archive(&world.context("hard2.tar"), &[(EntryKind::HardLink, "g", "nothing")]);
    world.refused(&["hard2.tar"], "/n", "invalid hardlink");
}

#[test]
fn the_digest_is_that_of_content_and_not_of_times() {
    let world = World::new();
    let digest = |source: &str| find(&world.tree("context"), source, false, true).unwrap()[0].digest.clone();
    let (file, folder) = (digest("a.txt"), digest("sub"));
    assert!(file.starts_with("file:") && folder.starts_with("dir:"));
    fs::write(world.context("a.txt"), "a").unwrap();
    assert_eq!(digest("a.txt"), file, "another time only");
    fs::write(world.context("sub/deep/d"), "D").unwrap();
    assert_ne!(digest("sub"), folder);
}
