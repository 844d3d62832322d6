//! Loading, importing, naming, listing and removing.
//!
//! In: archives made here. Out: what the store shows. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use bytes::Bytes;
use fixture::{config, gzip, leftovers, open, stream, tar, with_progress};
use images::{
    ContainerUse, Digest, ImageId, ImportOptions, Kind, ListFilter, ListOptions, ProgressSender, Removed,
    Store, message,
};
use tempfile::TempDir;

fn none() -> ProgressSender {
    ProgressSender::none()
}

/// What `docker save` writes for one image.
fn saved(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let plain: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let config = config(&plain, "amd64");
    let config_file = format!("{}.json", Digest::of(&config).hex());
    let files: Vec<String> = (0..layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": config_file, "RepoTags": [name], "Layers": files}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut entries: Vec<(&str, &[u8])> = vec![(&config_file, &config)];
    entries.extend(files.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    entries.push(("manifest.json", &manifest));
    tar(&entries)
}

/// An OCI layout of one image behind a nested index.
fn oci(name: &str, layer: &[u8], is_honest: bool) -> Vec<u8> {
    let config = config(&[layer], "amd64");
    let blob = gzip(layer);
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2,
        "config": describe("config.v1+json", &config), "layers": [describe("layer.v1.tar+gzip", &blob)]}))
    .unwrap();
    let mut entry = describe("manifest.v1+json", &manifest);
    entry["platform"] =
        serde_json::json!({"os": "linux", "architecture": images::Platform::host().architecture});
    let nested = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap();
    let mut outer = describe("index.v1+json", &nested);
    outer["annotations"] =
        serde_json::json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [outer]})).unwrap();
    let manifest_file = path(&manifest);
    let content = if is_honest { manifest.clone() } else { [manifest.as_slice(), b" "].concat() };
    tar(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        (&path(&nested), &nested),
        (&manifest_file, &content),
        (&path(&config), &config),
        (&path(&blob), &blob),
    ])
}

async fn load(store: &Store, archive: Vec<u8>) -> Vec<(ImageId, Option<String>)> {
    store.load(stream(archive), none()).await.unwrap()
}

async fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    (dir, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_docker_save_are_loaded_compressed_or_not() {
    let (_dir, store) = fresh().await;
    let archive = saved("app:1", &[tar(&[("a", b"1")]), tar(&[("b", b"22")])]);
    let (loaded, lines) =
        with_progress(async |p| store.load(stream(archive.clone()), p).await.unwrap()).await;
    assert_eq!(loaded[0].1.as_deref(), Some("app:1"));
    let told: Vec<&str> = lines.iter().filter_map(|l| l.stream.as_deref().or(l.status.as_deref())).collect();
    assert!(told.contains(&"Loading layer") && told.last() == Some(&"Loaded image: app:1\n"), "{told:?}");
    let zstd = zstd::stream::encode_all(&archive[..], 1).unwrap();
    for compressed in [gzip(&archive), zstd] {
        assert_eq!(load(&store, compressed).await, loaded);
    }
    let image = store.image(&loaded[0].0).await.unwrap();
    assert_eq!((image.layers.len(), image.tags.as_slice()), (2, &["app:1".to_owned()][..]));
    assert_eq!(std::fs::read(image.layers[0].join("b")).unwrap(), b"22");
    // Another image takes the name.
    let other = saved("app:1", &[tar(&[("c", b"3")])]);
    let (_, lines) = with_progress(async |p| store.load(stream(other), p).await.unwrap()).await;
    let expect = format!(
        "The image app:1 already exists, renaming the old one with ID {} to empty string\n",
        loaded[0].0
    );
    assert!(lines.iter().any(|l| l.stream.as_deref() == Some(expect.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_is_loaded_by_platform_and_checked() {
    let (dir, store) = fresh().await;
    let layer = tar(&[("a", b"1")]);
    let loaded = load(&store, oci("docker.io/library/oci:1", &layer, true)).await;
    assert_eq!(loaded[0].1.as_deref(), Some("oci:1"));
    assert!(store.inspect("oci:1").await.unwrap().descriptor.is_some());
    store.remove("oci:1", false).await.unwrap();
    let error = store.load(stream(oci("oci:1", &layer, false)), none()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidParameter, "{}", message(&error));
    assert!(message(&error).contains("has digest"), "{}", message(&error));
    assert_eq!(leftovers(&dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_are_refused_and_leave_nothing() {
    let (dir, store) = fresh().await;
    let good = saved("app:1", &[tar(&[("a", &fixture::noise(100_000))])]);
    let mut wrong_layer = saved("app:1", &[tar(&[("a", b"1")])]);
    // The layer's own content, after its header and the file's header.
    let at = wrong_layer.windows(12).position(|w| w == b"layer0/layer").unwrap() + 1024;
    wrong_layer[at] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cut", good[..good.len() / 2].to_vec(), "read archive"),
        ("garbage", b"this is no archive at all".repeat(100), "read archive"),
        ("empty", Vec::new(), "does not contain a manifest.json"),
        ("foreign", tar(&[("readme", b"hi")]), "does not contain a manifest.json"),
        ("damaged layer", wrong_layer, "failed to register layer"),
        (
            "escape",
            tar(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]),
            "archive lacks",
        ),
        ("bad json", tar(&[("manifest.json", b"{")]), "parse `manifest.json`"),
    ];
    for (name, archive, expect) in cases {
        let error = store.load(stream(archive), none()).await.unwrap_err();
        assert!(message(&error).contains(expect), "{name}: {}", message(&error));
        assert_eq!(error.kind(), Kind::InvalidParameter, "{name}");
        assert_eq!((leftovers(&dir), store.count()), (Vec::new(), 0), "{name}");
    }
    let broken_off = futures_util::stream::iter([
        Ok(Bytes::from(good[..50_000].to_vec())),
        Err(std::io::ErrorKind::ConnectionReset.into()),
    ]);
    assert!(store.load(Box::pin(broken_off), none()).await.is_err());
    assert_eq!(leftovers(&dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_load_leaves_nothing() {
    let (dir, store) = fresh().await;
    let good = saved("app:1", &[tar(&[("a", &fixture::noise(300_000))])]);
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let body = futures_util::stream::unfold(receiver, |mut r| async { r.recv().await.map(|item| (item, r)) });
    {
        let mut load = Box::pin(store.load(Box::pin(body), none()));
        sender.send(Ok(Bytes::from(good[..200_000].to_vec()))).await.unwrap();
        tokio::select! {
            _ = &mut load => panic!("finished"),
            () = async { while leftovers(&dir).is_empty() { tokio::task::yield_now().await } } => {}
        }
    }
    fixture::eventually("the leftovers are gone", || leftovers(&dir).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_file_system_is_imported_with_its_changes() {
    let (dir, store) = fresh().await;
    let options = |reference: &str, changes: &[&str]| ImportOptions {
        reference: Some(reference.to_owned()),
        message: Some("by hand".to_owned()),
        changes: changes.iter().map(|c| (*c).to_owned()).collect(),
        platform: None,
    };
    let archive = gzip(&tar(&[("bin/sh", b"#!")]));
    let changes = ["CMD [\"/bin/sh\"]", "ENV A=1", "LABEL made=here"];
    let (id, lines) = with_progress(async |p| {
        store.import(stream(archive.clone()), options("mine", &changes), p).await.unwrap()
    })
    .await;
    assert_eq!(lines.last().unwrap().status.as_deref(), Some(id.as_str()));
    let image = store.image(&store.resolve("mine:latest").unwrap()).await.unwrap();
    assert_eq!((image.id, image.config.env.as_slice(), image.layers.len()), (id, &["A=1".to_owned()][..], 1));
    assert!(image.layers[0].join("bin/sh").exists());
    assert_eq!(store.history("mine").await.unwrap()[0].comment, "by hand");
    store.remove("mine", false).await.unwrap();
    let error = store.import(stream(archive), options("mine", &["RUN x"]), none()).await.unwrap_err();
    assert_eq!(
        (message(&error).as_str(), error.kind()),
        ("run is not a valid change command", Kind::InvalidParameter)
    );
    let error = store.import(stream(b"BZh9xxxxxx".to_vec()), options("mine", &[]), none()).await.unwrap_err();
    assert!(message(&error).contains("bzip2"), "{}", message(&error));
    assert_eq!(leftovers(&dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_as_docker_does() {
    let (_dir, store) = fresh().await;
    let id = load(&store, saved("user/app:1", &[tar(&[("a", b"1")])])).await.remove(0).0;
    store.tag("user/app:1", "other").await.unwrap();
    let second = ImportOptions { reference: Some("second:2".to_owned()), ..ImportOptions::default() };
    let second = store.import(stream(tar(&[("b", b"22")])), second, none()).await.unwrap();
    let third = store.import(stream(tar(&[("c", b"3")])), ImportOptions::default(), none()).await.unwrap();
    let check = async |filters: ListFilter, expect: &[&ImageId]| {
        let rows =
            store.list(&ListOptions { filters: filters.clone(), ..ListOptions::default() }).await.unwrap();
        let mut found: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let mut expect: Vec<&str> = expect.iter().map(|id| id.as_str()).collect();
        found.sort_unstable();
        expect.sort_unstable();
        assert_eq!(found, expect, "{filters:?}");
    };
    let some = |text: &str| vec![text.to_owned()];
    check(ListFilter::default(), &[&id, &second, &third]).await;
    check(ListFilter { reference: some("user/app"), ..ListFilter::default() }, &[&id]).await;
    check(ListFilter { reference: some("*:2"), ..ListFilter::default() }, &[&second]).await;
    check(ListFilter { label: some("made"), ..ListFilter::default() }, &[&id]).await;
    check(ListFilter { label: some("made=there"), ..ListFilter::default() }, &[]).await;
    check(ListFilter { dangling: Some(true), ..ListFilter::default() }, &[&third]).await;
    check(ListFilter { dangling: Some(false), ..ListFilter::default() }, &[&id, &second]).await;
    check(ListFilter { before: some("second:2"), ..ListFilter::default() }, &[&id]).await;
    check(ListFilter { since: some(id.short()), ..ListFilter::default() }, &[&second, &third]).await;
    let gone = ListOptions {
        filters: ListFilter { since: some("gone"), ..ListFilter::default() },
        ..ListOptions::default()
    };
    assert_eq!(message(&store.list(&gone).await.unwrap_err()), "No such image: gone:latest");
    let rows = store.list(&ListOptions { shared_size: true, ..ListOptions::default() }).await.unwrap();
    // Newest first: the loaded image is from 2024.
    assert_eq!(rows[2].repo_tags, ["other:latest", "user/app:1"]);
    assert_eq!(
        (rows[2].size, rows[2].shared_size, rows[2].containers, rows[2].created),
        (1, 0, -1, 1_714_979_289)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_follows_dockers_rules() {
    let (dir, store) = fresh().await;
    let archive = saved("app:1", &[tar(&[("a", b"1")])]);
    let id = load(&store, archive).await.remove(0).0;
    let short = id.short().to_owned();
    let refuse = async |name: &str, force: bool, expect: String| {
        let error = store.remove(name, force).await.unwrap_err();
        assert_eq!((message(&error), error.kind()), (expect, Kind::Conflict));
    };
    store.tag("app:1", "app:2").await.unwrap();
    store.tag("app:1", "b:1").await.unwrap();
    let text = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    refuse(&short, false, text).await;
    let untagged = |name: &str| Removed::Untagged { reference: name.to_owned(), image: id.clone() };
    assert_eq!(store.remove("app:2", false).await.unwrap(), [untagged("app:2")]);
    assert_eq!(store.remove("b:1", false).await.unwrap(), [untagged("b:1")]);
    let container = "0123456789abcdef".repeat(4);
    store.hold(&id, ContainerUse { container: container.clone(), is_running: true }).unwrap();
    let text = format!(
        "conflict: unable to remove repository reference \"app:1\" (must force) - container 0123456789ab is using its referenced image {short}"
    );
    refuse("app:1", false, text).await;
    let text = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
    );
    refuse(&short, true, text.clone()).await;
    refuse(&short, false, text).await;
    store.set_running(&container, false);
    let text = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
    );
    refuse(&short, false, text).await;
    store.release(&container).await;
    let removed = store.remove("app:1", false).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert_eq!(removed[..2], [untagged("app:1"), Removed::Image(id.clone())]);
    assert_eq!(leftovers(&dir), Vec::<String>::new());
    let error = store.remove("app:1", false).await.unwrap_err();
    assert_eq!((message(&error).as_str(), error.kind()), ("No such image: app:1", Kind::NotFound));
    let error = store.remove("app", false).await.unwrap_err();
    assert_eq!(message(&error), "No such image: app:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_go_with_the_last_image() {
    let (_dir, store) = fresh().await;
    let base = tar(&[("base", b"1")]);
    let a = load(&store, saved("a:1", std::slice::from_ref(&base))).await.remove(0).0;
    let b = load(&store, saved("b:1", &[base, tar(&[("top", b"2")])])).await.remove(0).0;
    let (one, two) = (store.image(&a).await.unwrap(), store.image(&b).await.unwrap());
    assert_eq!(one.layers[0], two.layers[1], "the base is unpacked once");
    let removed = store.remove("b:1", false).await.unwrap();
    assert_eq!(removed.iter().filter(|r| matches!(r, Removed::Layer(_))).count(), 1);
    assert!(one.layers[0].join("base").exists() && !two.layers[0].exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_layer_was_deleted_by_hand_is_forgotten_on_open() {
    let (dir, store) = fresh().await;
    let id = load(&store, saved("a:1", &[tar(&[("a", b"1")])])).await.remove(0).0;
    load(&store, saved("b:1", &[tar(&[("b", b"1")])])).await;
    std::fs::remove_dir_all(&store.image(&id).await.unwrap().layers[0]).unwrap();
    std::fs::create_dir_all(dir.path().join("images/l/stray/x")).unwrap();
    drop(store);
    let store = open(&dir).await;
    assert!(store.resolve("a:1").is_err() && store.resolve("b:1").is_ok());
    assert!(!dir.path().join("images/l/stray").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_ids_are_told_apart() {
    let (_dir, store) = fresh().await;
    let id = load(&store, saved("app:1", &[tar(&[("a", b"1")])])).await.remove(0).0;
    for name in ["app:1", "docker.io/library/app:1", id.as_str(), id.hex(), id.short()] {
        assert_eq!(store.resolve(name).unwrap(), id, "{name}");
    }
    assert_eq!(message(&store.resolve("app").unwrap_err()), "No such image: app:latest");
    assert_eq!(
        message(&store.resolve("UPPER").unwrap_err()),
        "invalid reference format: repository name (library/UPPER) must be lowercase"
    );
    assert_eq!(message(&store.tag("app:1", "x@sha256:00").await.unwrap_err()), "invalid reference format");
    assert_eq!(message(&store.tag("gone", "x").await.unwrap_err()), "No such image: gone:latest");
    // A name may look like the beginning of an id; the name wins.
    let prefix = &id.hex()[..4];
    let other = load(&store, saved(&format!("{prefix}:latest"), &[tar(&[("z", b"1")])])).await.remove(0).0;
    assert_eq!(store.resolve(prefix).unwrap(), other);
}
