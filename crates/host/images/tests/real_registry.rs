//! The registry that others use, filled by the tool that others use: docker-registry and skopeo.
//!
//! In: an image built here, copied by skopeo into a registry on a free loopback port. Out: the same image, pulled.
//! Says so when one of the two programs is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod fixture;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use fixture::{layer, noise, open, options, stream, tar, with_progress};
use images::{ImportOptions, ProgressSender};

/// A registry process, ended with the test.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

async fn start(dir: &Path) -> Registry {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
        dir.display()
    );
    let file = dir.join("config.yml");
    std::fs::write(&file, config).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    fixture::eventually("the registry listens", || std::net::TcpStream::connect(&address).is_ok()).await;
    Registry { child, address }
}

fn is_there(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("NOT TESTED: {program} is not installed");
    }
    found
}

fn skopeo(args: &[&str]) {
    let out = Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args(args).output().unwrap();
    assert!(out.status.success(), "skopeo: {}", String::from_utf8_lossy(&out.stderr));
}

/// A `docker save` archive of one image in a file.
fn archive(dir: &Path) -> std::path::PathBuf {
    let layers =
        [layer(&[("etc/os-release", b"ID=test\n"), ("big", &noise(300_000))]).1, layer(&[("top", b"2")]).1];
    let plain: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let config = fixture::config(&plain, "amd64");
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["0.tar", "1.tar"]}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let tar = tar(&[
        ("c.json", &config),
        ("0.tar", &layers[0]),
        ("1.tar", &layers[1]),
        ("manifest.json", &manifest),
    ]);
    let path = dir.join("app.tar");
    std::fs::write(&path, tar).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushed_is_pulled_in_every_format() {
    if !is_there("docker-registry") || !is_there("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let source = format!("docker-archive:{}", archive(dir.path()).display());
    for (tag, format, compression) in
        [("v2", "v2s2", "gzip"), ("oci", "oci", "gzip"), ("zstd", "oci", "zstd")]
    {
        let target = format!("docker://{}/team/app:{tag}", registry.address);
        skopeo(&[
            "--dest-tls-verify=false",
            "--format",
            format,
            "--dest-compress-format",
            compression,
            &source,
            &target,
        ]);
        let home = tempfile::tempdir().unwrap();
        let store = open(&home).await;
        let name = format!("{}/team/app:{tag}", registry.address);
        let (pulled, lines) = with_progress(async |p| store.pull(options(&name), p).await.unwrap()).await;
        let image = store.image(&pulled.id).await.unwrap();
        assert_eq!(std::fs::read(image.layers[1].join("big")).unwrap(), noise(300_000), "{tag}");
        assert_eq!(std::fs::read(image.layers[0].join("top")).unwrap(), b"2");
        assert!(
            lines.last().unwrap().status.as_deref().unwrap().starts_with("Status: Downloaded newer image")
        );
        assert!(!store.pull(options(&name), ProgressSender::none()).await.unwrap().is_new);
        let found = store.distribution(&name, None).await.unwrap();
        assert_eq!(
            (found.descriptor.digest, found.platforms[0].os.as_str()),
            (pulled.digest.to_string(), "linux")
        );
        let error = store.pull(options(&format!("{name}-none")), ProgressSender::none()).await.unwrap_err();
        assert!(
            images::message(&error).ends_with("not found: manifest unknown: manifest unknown"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_archives_is_loaded() {
    if !is_there("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = format!("docker-archive:{}", archive(dir.path()).display());
    let store = open(&dir).await;
    for (target, name) in [("docker-archive", "saved:1"), ("oci-archive", "oci:1")] {
        let file = dir.path().join(target);
        skopeo(&[&source, &format!("{target}:{}:{name}", file.display())]);
        let bytes = std::fs::read(&file).unwrap();
        let loaded = store.load(stream(bytes), ProgressSender::none()).await.unwrap();
        assert_eq!(loaded[0].1.as_deref(), Some(name), "{target}");
        assert_eq!(store.image(&loaded[0].0).await.unwrap().layers.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_gnu_tar_wrote_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("tree/{}/{}", "d".repeat(120), "f".repeat(120));
    let script = format!(
        "cd {} && mkdir -p $(dirname {long}) && echo long > {long} && ln {long} tree/hard && ln -s hard tree/soft \
         && mkfifo tree/pipe && mknod tree/null c 1 3 && setfattr -n user.x -v y tree/hard 2>/dev/null; \
         tar --format=$FORMAT --xattrs -C tree -cf - .",
        dir.path().display()
    );
    let store = open(&dir).await;
    for format in ["gnu", "pax"] {
        let out = Command::new("sh").args(["-c", &script]).env("FORMAT", format).output().unwrap();
        assert!(out.status.success(), "tar: {}", String::from_utf8_lossy(&out.stderr));
        let id =
            store.import(stream(out.stdout), ImportOptions::default(), ProgressSender::none()).await.unwrap();
        let root = store.image(&id).await.unwrap().layers.remove(0);
        assert_eq!(std::fs::read_to_string(root.join("soft")).unwrap(), "long\n", "{format}");
        assert_eq!(std::fs::read_to_string(root.join(&long["tree/".len()..])).unwrap(), "long\n", "{format}");
        std::fs::remove_dir_all(dir.path().join("tree")).unwrap();
    }
}
