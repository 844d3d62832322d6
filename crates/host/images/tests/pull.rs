//! Pulls from registries that behave and from ones that do not.
//!
//! In: the registry of `fixture`. Out: what is in the store afterwards, and in what words it was told. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::os::unix::fs::MetadataExt;

use docker::AuthConfig;
use fixture::{Fault, INDEX, Login, Server, layer, leftovers, noise, open, options, tar, with_progress};
use images::{ContainerUse, Kind, ListOptions, ProgressSender, PullError, RegistryConfig, Store, message};

fn none() -> ProgressSender {
    ProgressSender::none()
}

fn blob_path(repo: &str, bytes: &[u8]) -> String {
    format!("/v2/{repo}/blobs/{}", images::Digest::of(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_every_encoding_arrives_whole() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (gz, gz_plain) = layer(&[("hello", b"gzip")]);
    let zstd_plain = tar(&[("dir/two", b"zstd")]);
    let zstd = zstd::stream::encode_all(&zstd_plain[..], 3).unwrap();
    let plain = tar(&[("three", b"plain")]);
    let layers = [(gz, gz_plain), (zstd, zstd_plain), (plain.clone(), plain)];
    let digest = server.put_image("app", "1", &layers);
    let store = open(&dir).await;
    let name = format!("{}/app:1", server.address);
    let (pulled, lines) = with_progress(async |p| store.pull(options(&name), p).await.unwrap()).await;
    assert_eq!(
        (pulled.digest.clone(), pulled.is_new, pulled.reference.as_str()),
        (digest.clone(), true, name.as_str())
    );
    let image = store.image(&pulled.id).await.unwrap();
    let files = ["three", "dir/two", "hello"];
    for (folder, file) in image.layers.iter().zip(files) {
        let meta = std::fs::metadata(folder.join(file)).unwrap();
        assert_eq!(
            (meta.mode() & 0o777, folder.file_name().unwrap().len()),
            (0o644, 1),
            "{file} in {folder:?}"
        );
    }
    assert_eq!(image.config.cmd.as_ref().unwrap()[0], "/hello");
    assert_eq!(image.config.healthcheck.as_ref().unwrap().test, ["CMD", "true"]);
    let told: Vec<&str> = lines.iter().filter_map(|l| l.status.as_deref()).collect();
    for text in [
        "Pulling from app",
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ] {
        assert!(told.contains(&text), "{text} missing in {told:?}");
    }
    assert_eq!(
        told[told.len() - 2..],
        [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}")]
    );
    let inspect = store.inspect(&name).await.unwrap();
    assert_eq!(inspect.repo_tags, [name.as_str()]);
    assert_eq!(inspect.repo_digests, [format!("{}/app@{digest}", server.address)]);
    assert_eq!((inspect.root_fs.layers.len(), inspect.size, inspect.os.as_str()), (3, 13, "linux"));
    let history = store.history(&name).await.unwrap();
    assert_eq!(history.iter().map(|h| h.size).collect::<Vec<_>>(), [5, 4, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_asks_only_for_the_digest_and_survives_a_restart() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put_image("app", "1", &[layer(&[("a", b"1")])]);
    let name = format!("{}/app:1", server.address);
    let id = open(&dir).await.pull(options(&name), none()).await.unwrap().id;
    let store = open(&dir).await;
    let before = server.log().len();
    let (again, lines) = with_progress(async |p| store.pull(options(&name), p).await.unwrap()).await;
    assert_eq!((again.id.clone(), again.is_new), (id.clone(), false));
    assert_eq!(server.log()[before..], ["HEAD /v2/app/manifests/1"]);
    assert_eq!(
        lines.last().unwrap().status.clone().unwrap(),
        format!("Status: Image is up to date for {name}")
    );
    // The tag moves: the old image loses it and stays as dangling.
    server.put_image("app", "1", &[layer(&[("a", b"1")]), layer(&[("b", b"2")])]);
    let (moved, lines) = with_progress(async |p| store.pull(options(&name), p).await.unwrap()).await;
    assert!(moved.is_new && moved.id != id);
    assert!(lines.iter().any(|l| l.status.as_deref() == Some("Already exists")));
    assert_eq!(store.inspect(id.as_str()).await.unwrap().repo_tags, Vec::<String>::new());
    assert_eq!(store.list(&ListOptions::default()).await.unwrap().len(), 2);
    // By digest, without the registry.
    let by_digest = format!("{}/app@{}", server.address, moved.digest);
    let before = server.log().len();
    assert_eq!(store.pull(options(&by_digest), none()).await.unwrap().id, moved.id);
    assert_eq!(server.log().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_chooses_the_build() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let entry = |arch: &str| {
        let digest = server.put_image_for("app", arch, &[layer(&[(arch, b"1")])], arch);
        serde_json::json!({"mediaType": fixture::MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": arch}})
    };
    let entries = vec![entry("amd64"), entry("arm64")];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let digest = server.put_manifest("app", "multi", INDEX, &serde_json::to_vec(&index).unwrap());
    let store = open(&dir).await;
    let name = format!("{}/app:multi", server.address);
    let pulled = store.pull(options(&name), none()).await.unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(store.image(&pulled.id).await.unwrap().platform.architecture, "amd64");
    let mut other = options(&name);
    other.platform = Some("linux/arm64".parse().unwrap());
    let arm = store.pull(other.clone(), none()).await.unwrap();
    assert_eq!(store.image(&arm.id).await.unwrap().platform.architecture, "arm64");
    other.platform = Some("linux/s390x".parse().unwrap());
    let error = store.pull(other, none()).await.unwrap_err();
    assert_eq!(message(&error), "no matching manifest for linux/s390x in the manifest list entries");
    let found = store.distribution(&name, None).await.unwrap();
    assert_eq!((found.descriptor.digest, found.descriptor.media_type.as_str()), (digest.to_string(), INDEX));
    let platforms: Vec<_> = found.platforms.iter().map(|p| p.architecture.as_str()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let single = store.distribution(&format!("{}/app:arm64", server.address), None).await.unwrap();
    assert_eq!(single.platforms[0].architecture, "arm64");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_dockers_words_and_leave_nothing() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (good, bad, liar) = (layer(&[("a", b"1")]), layer(&[("b", b"2")]), layer(&[("c", b"3")]));
    server.put_image("corrupt", "1", &[good.clone(), bad.clone()]);
    server.fault(&blob_path("corrupt", &bad.0), Fault::Corrupt);
    server.put_image("liar", "1", &[good.clone(), (liar.0, b"something else".to_vec())]);
    server.put_image("denied", "1", std::slice::from_ref(&good));
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    server.fault("/v2/denied/manifests/1", Fault::Status { status: 403, body: denied, times: 99 });
    let (evil_blob, evil_plain) = layer(&[("x", b"1")]);
    server.put_image("evil", "1", &[good, (evil_blob, evil_plain)]);
    let store = open(&dir).await;
    let host = server.address.clone();
    let check = async |name: &str, kind: Kind, expect: &str| {
        let error = store.pull(options(&format!("{host}/{name}")), none()).await.unwrap_err();
        assert!(message(&error).contains(expect), "{name}: {}", message(&error));
        assert_eq!(error.kind(), kind, "{name}");
        assert_eq!(store.list(&ListOptions::default()).await.unwrap(), []);
        assert_eq!(leftovers(&dir), Vec::<String>::new(), "{name}");
    };
    let missing = format!("manifest for {host}/none:1 not found: manifest unknown: manifest unknown");
    check("none:1", Kind::NotFound, &missing).await;
    let denied = format!(
        "pull access denied for {host}/denied, repository does not exist or may require 'docker login'"
    );
    check("denied:1", Kind::NotFound, &denied).await;
    check("corrupt:1", Kind::System, "filesystem layer verification failed for digest sha256:").await;
    check("liar:1", Kind::System, "failed to register layer: layer has diff id").await;
    let error = store.pull(options("127.0.0.1:1/x"), none()).await.unwrap_err();
    assert_eq!(
        message(&error),
        "Get \"http://127.0.0.1:1/v2/x/manifests/latest\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    let error = store.pull(options("UPPER"), none()).await.unwrap_err();
    assert_eq!(
        (error.kind(), message(&error).as_str()),
        (
            Kind::InvalidParameter,
            "invalid reference format: repository name (library/UPPER) must be lowercase"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_transfer_is_resumed_where_it_ended() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let big = layer(&[("big", &noise(600_000))]);
    server.put_image("app", "1", std::slice::from_ref(&big));
    let path = blob_path("app", &big.0);
    server.fault(&path, Fault::Cut { after: 300_000, times: 1, resumes: true });
    server.fault("/v2/app/manifests/1", Fault::Status { status: 503, body: "", times: 1 });
    let store = open(&dir).await;
    let pulled = store.pull(options(&format!("{}/app:1", server.address)), none()).await.unwrap();
    let folder = &store.image(&pulled.id).await.unwrap().layers[0];
    assert_eq!(std::fs::read(folder.join("big")).unwrap(), noise(600_000));
    assert_eq!(server.count(&format!("GET {path} from 300000")), 1, "{:?}", server.log());
    assert_eq!(server.count("GET /v2/app/manifests/1"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_resume_is_read_from_the_start() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let big = layer(&[("big", &noise(200_000))]);
    server.put_image("app", "1", std::slice::from_ref(&big));
    let path = blob_path("app", &big.0);
    server.fault(&path, Fault::Cut { after: 100_000, times: 1, resumes: false });
    let store = open(&dir).await;
    let pulled = store.pull(options(&format!("{}/app:1", server.address)), none()).await.unwrap();
    let folder = &store.image(&pulled.id).await.unwrap().layers[0];
    assert_eq!(std::fs::read(folder.join("big")).unwrap(), noise(200_000));
    assert_eq!(server.count(&format!("GET {path}")), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing_and_the_next_one_works() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (small, big) = (layer(&[("small", b"1")]), layer(&[("big", &noise(500_000))]));
    server.put_image("app", "1", &[small, big.clone()]);
    server.fault(&blob_path("app", &big.0), Fault::Stall { after: 250_000 });
    let store = open(&dir).await;
    let name = format!("{}/app:1", server.address);
    let half_done = async {
        server.stalled().await;
        // One layer is complete, the other half there.
        while !leftovers(&dir).iter().any(|path| path.ends_with("small")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = store.pull(options(&name), none()) => panic!("finished"),
        () = half_done => {}
    }
    fixture::eventually("the leftovers are gone", || leftovers(&dir).is_empty()).await;
    assert!(matches!(store.resolve(&name), Err(images::LookupError::NotFound { .. })));
    server.heal();
    let pulled = store.pull(options(&name), none()).await.unwrap();
    assert_eq!(store.image(&pulled.id).await.unwrap().layers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_share_a_layer_and_either_may_be_dropped() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (shared, own) = (layer(&[("shared", &noise(400_000))]), layer(&[("own", b"1")]));
    server.put_image("one", "1", std::slice::from_ref(&shared));
    server.put_image("two", "1", &[shared.clone(), own]);
    let path = blob_path("one", &shared.0);
    server.fault(&path, Fault::Stall { after: 200_000 });
    let store = open(&dir).await;
    let (one, two) = (format!("{}/one:1", server.address), format!("{}/two:1", server.address));
    // `one` downloads and stalls, `two` waits for it; then `one` goes away and `two` does the work itself.
    let mut second = Box::pin(store.pull(options(&two), none()));
    {
        let mut first = Box::pin(store.pull(options(&one), none()));
        tokio::select! {
            _ = &mut first => panic!("finished"),
            () = server.stalled() => {}
        }
        let own_done = async {
            while server.count("/v2/two/blobs/") < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut first => panic!("finished"),
            _ = &mut second => panic!("did not wait"),
            () = own_done => {}
        }
        assert_eq!(server.count(&blob_path("two", &shared.0)), 0, "the shared layer was asked for twice");
    }
    let pulled = second.await.unwrap();
    assert_eq!(store.image(&pulled.id).await.unwrap().layers.len(), 2);
    assert_eq!(server.count(&blob_path("two", &shared.0)), 1);
    // And when nobody goes away, it is fetched once.
    let dir = tempfile::tempdir().unwrap();
    server.heal();
    let before = server.count(&shared_digest(&shared.0));
    let store = open(&dir).await;
    let (a, b) = tokio::join!(store.pull(options(&one), none()), store.pull(options(&two), none()));
    a.unwrap();
    b.unwrap();
    assert_eq!(server.count(&shared_digest(&shared.0)) - before, 1);
}

fn shared_digest(bytes: &[u8]) -> String {
    images::Digest::of(bytes).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_used_and_a_refused_one_is_told() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put_image("app", "1", &[layer(&[("a", b"1")])]);
    let store = open(&dir).await;
    let name = format!("{}/app:1", server.address);
    // joe:pw
    let right = AuthConfig { username: "joe".into(), password: "pw".into(), ..AuthConfig::default() };
    let wrong = AuthConfig { password: "no".into(), ..right.clone() };
    for login in [Login::Basic("am9lOnB3"), Login::Bearer("am9lOnB3")] {
        server.login(login.clone());
        for (auth, expect) in [(None, "auth"), (Some(wrong.clone()), "unauthorized")] {
            let error = store.pull(images::PullOptions { auth, ..options(&name) }, none()).await.unwrap_err();
            assert!(matches!(error, PullError::Unauthorized { .. }), "{login:?}: {error:?}");
            assert!(message(&error).contains(expect), "{login:?}: {}", message(&error));
        }
        let auth = Some(right.clone());
        let dir = tempfile::tempdir().unwrap();
        open(&dir).await.pull(images::PullOptions { auth, ..options(&name) }, none()).await.unwrap();
    }
    server.login(Login::Bearer(""));
    store.pull(options(&name), none()).await.unwrap();
    let token = AuthConfig { registrytoken: "secret-token".into(), ..AuthConfig::default() };
    assert_eq!(store.distribution(&name, Some(&token)).await.unwrap().platforms.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_docker_hub() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put_image("library/tiny", "latest", &[layer(&[("a", b"1")])]);
    let config = RegistryConfig {
        mirrors: vec!["http://127.0.0.1:1".to_owned(), format!("http://{}/", server.address)],
        ..RegistryConfig::default()
    };
    let store = Store::open(dir.path().join("images"), config).await.unwrap();
    let pulled = store.pull(options("tiny"), none()).await.unwrap();
    assert_eq!(pulled.reference, "tiny:latest");
    assert_eq!(store.resolve("docker.io/library/tiny").unwrap(), pulled.id);
    assert_eq!(store.resolve(pulled.id.short()).unwrap(), pulled.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_nothing() {
    // The mount is visible to the other tests of this process, but in a folder of its own, and removed here.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(mounted.success(), "cannot mount a tmpfs: this test needs root");
    let server = Server::start().await;
    server.put_image("app", "1", &[layer(&[("big", &noise(400_000))])]);
    server.put_image("app", "small", &[layer(&[("small", b"1")])]);
    let outcome = async {
        let store = open(&dir).await;
        let error = store.pull(options(&format!("{}/app:1", server.address)), none()).await.unwrap_err();
        let left = leftovers(&dir);
        let small = store.pull(options(&format!("{}/app:small", server.address)), none()).await;
        (message(&error), left, small.is_ok())
    }
    .await;
    let unmounted = std::process::Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    assert!(outcome.0.contains("no space left on device"), "{}", outcome.0);
    assert_eq!((outcome.1, outcome.2), (Vec::new(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_use_outlives_its_removal_by_force() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put_image("app", "1", &[layer(&[("a", b"1")])]);
    let name = format!("{}/app:1", server.address);
    let store = open(&dir).await;
    let id = store.pull(options(&name), none()).await.unwrap().id;
    let container = ContainerUse { container: "c".repeat(64), is_running: false };
    store.hold(&id, container.clone()).unwrap();
    store.remove(id.as_str(), true).await.unwrap();
    assert!(store.resolve(&name).is_err() && store.count() == 0);
    // A restart in between: the hold comes back before the sweep.
    drop(store);
    let store = open(&dir).await;
    store.hold(&id, container.clone()).unwrap();
    store.sweep().await;
    assert!(store.image(&id).await.unwrap().layers[0].join("a").exists());
    store.release(&container.container).await;
    assert!(store.image(&id).await.is_err());
    assert_eq!(leftovers(&dir), Vec::<String>::new());
}

/// Where the killed process below pulls from and to.
const VICTIM: &str = "SKEP_TEST_VICTIM";

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Ok(order) = std::env::var(VICTIM) else { return };
    let (root, name) = order.split_once(' ').unwrap();
    let store = Store::open(root, RegistryConfig::default()).await.unwrap();
    store.pull(options(name), none()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_leaves_nothing_after_the_next_open() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (small, big) = (layer(&[("small", b"1")]), layer(&[("big", &noise(500_000))]));
    server.put_image("app", "1", &[small, big.clone()]);
    server.fault(&blob_path("app", &big.0), Fault::Stall { after: 250_000 });
    let name = format!("{}/app:1", server.address);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim"])
        .env(VICTIM, format!("{} {name}", dir.path().join("images").display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    server.stalled().await;
    fixture::eventually("a layer is complete", || leftovers(&dir).iter().any(|path| path.ends_with("small")))
        .await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!leftovers(&dir).is_empty(), "the kill came too late");
    let store = open(&dir).await;
    assert_eq!((leftovers(&dir), store.count()), (Vec::new(), 0));
    server.heal();
    assert!(store.pull(options(&name), none()).await.unwrap().is_new);
}
