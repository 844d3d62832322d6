//! Images on their way out: made of others, saved, removed with their steps, and pushed to the registry that others use.
//!
//! In: images built here. Out: the same images, in another store. Says so when docker-registry is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod fixture;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use fixture::{leftovers, open, options, stream, tar, with_progress};
use futures_util::StreamExt;
use images::{
    DeriveOptions, ImageId, ImportOptions, LayerWriter, ListOptions, ProgressSender, PushOptions, Store,
};

async fn base(store: &Store) -> ImageId {
    let import = ImportOptions { reference: Some("base:1".to_owned()), ..ImportOptions::default() };
    let archive = stream(tar(&[("etc/os-release", b"ID=test\n")]));
    store.import(archive, import, ProgressSender::none()).await.unwrap()
}

fn layer(bytes: Vec<u8>) -> LayerWriter {
    Box::new(move |out| out.write_all(&bytes))
}

async fn step(store: &Store, base: &ImageId, key: &str, bytes: Option<Vec<u8>>) -> ImageId {
    let options = DeriveOptions {
        base: Some(base.clone()),
        layer: bytes.map(layer),
        config: store.image(base).await.unwrap().config,
        platform: None,
        created_by: key.to_owned(),
        comment: String::new(),
        author: String::new(),
        reference: None,
        cache_key: Some(key.to_owned()),
    };
    store.derive(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_found_again_and_goes_with_the_last_image_made_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let base = base(&store).await;
    let first = step(&store, &base, "one", Some(tar(&[("one", b"1")]))).await;
    let nothing = step(&store, &first, "two", Some(vec![0; 1024])).await;
    assert_eq!(store.image(&first).await.unwrap().layers.len(), 2);
    assert_eq!(store.image(&nothing).await.unwrap().layers.len(), 2, "an empty layer is none");
    assert_eq!(store.cached_step(Some(&base), "one"), Some(first.clone()));
    assert_eq!((store.cached_step(Some(&base), "two"), store.cached_step(None, "one")), (None, None));
    let shown = async |all| {
        let options = ListOptions { all, ..ListOptions::default() };
        store.list(&options).await.unwrap().len()
    };
    assert_eq!((shown(false).await, shown(true).await), (2, 3), "a step with another on it is hidden");
    let history = store.history(nothing.as_str()).await.unwrap();
    let ids: Vec<&str> = history.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, [nothing.as_str(), first.as_str(), base.as_str()]);
    let refused = store.remove(first.as_str(), false).await.unwrap_err().to_string();
    assert!(refused.contains("image has dependent child images"), "{refused}");
    store.remove(nothing.as_str(), false).await.unwrap();
    assert_eq!(shown(true).await, 1, "the base has a name and stays");
    store.remove("base:1", false).await.unwrap();
    assert!(leftovers(&dir).is_empty(), "{:?}", leftovers(&dir));
}

async fn saved(store: &Store, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut archive = store.save(&names, None).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = archive.next().await {
        bytes.extend(piece.unwrap());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_loaded_with_the_same_ids() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, other) = (open(&here).await, open(&there).await);
    let base = base(&store).await;
    let top = step(&store, &base, "one", Some(tar(&[("one", b"1")]))).await;
    store.tag(top.as_str(), "team/top:1").await.unwrap();
    let bytes = saved(&store, &["team/top", "base:1"]).await;
    assert_eq!(bytes, saved(&store, &["team/top", "base:1"]).await, "the same images make the same archive");
    let mut loaded = other.load(stream(bytes), ProgressSender::none()).await.unwrap();
    loaded.sort();
    let mut expect = vec![(base, Some("base:1".to_owned())), (top.clone(), Some("team/top:1".to_owned()))];
    expect.sort();
    assert_eq!(loaded, expect);
    let image = other.image(&top).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("one")).unwrap(), b"1");
    assert!(store.save(&["no/such".to_owned()], None).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_nobody_reads_to_its_end_leaves_nothing_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let base = base(&store).await;
    let big = fixture::noise(4 << 20);
    let top = step(&store, &base, "big", Some(tar(&[("big", &big)]))).await;
    let mut archive = store.save(&[top.to_string()], None).unwrap();
    archive.next().await.unwrap().unwrap();
    store.remove(top.as_str(), false).await.unwrap();
    store.remove("base:1", false).await.unwrap();
    drop(archive);
    fixture::eventually("nothing is left", || leftovers(&dir).is_empty()).await;
}

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

async fn registry(dir: &Path) -> Option<Registry> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
        dir.display()
    );
    let file = dir.join("config.yml");
    std::fs::write(&file, config).unwrap();
    let quiet = || Stdio::null();
    let started =
        Command::new("docker-registry").arg("serve").arg(&file).stdout(quiet()).stderr(quiet()).spawn();
    let Ok(child) = started else {
        eprintln!("NOT TESTED: docker-registry is not installed");
        return None;
    };
    fixture::eventually("the registry listens", || std::net::TcpStream::connect(&address).is_ok()).await;
    Some(Registry { child, address })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_pulled_elsewhere_and_its_layers_are_mounted() {
    let (here, there, disk) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(registry) = registry(disk.path()).await else { return };
    let (store, other) = (open(&here).await, open(&there).await);
    let base = base(&store).await;
    let top = step(&store, &base, "one", Some(tar(&[("one", b"1")]))).await;
    let push = async |name: &str| {
        let reference = format!("{}/{name}", registry.address);
        store.tag(top.as_str(), &reference).await.unwrap();
        let options = PushOptions { reference, ..PushOptions::default() };
        let (pushed, lines) = with_progress(async |p| store.push(options, p).await.unwrap()).await;
        let told: Vec<String> = lines.into_iter().filter_map(|line| line.status).collect();
        (pushed, told)
    };
    let (pushed, told) = push("team/top:1").await;
    assert_eq!(told.iter().filter(|line| *line == "Pushed").count(), 2, "{told:?}");
    assert!(told.last().unwrap().starts_with(&format!("1: digest: {} size: ", pushed[0].digest)), "{told:?}");
    let (_, told) = push("team/top:2").await;
    assert_eq!(told.iter().filter(|line| *line == "Layer already exists").count(), 2, "{told:?}");
    let (again, told) = push("else/top:1").await;
    assert_eq!(told.iter().filter(|line| *line == "Mounted from team/top").count(), 2, "{told:?}");
    assert_eq!(again[0].digest, pushed[0].digest);
    let name = format!("{}/team/top:1", registry.address);
    let pulled = other.pull(options(&name), ProgressSender::none()).await.unwrap();
    assert_eq!((pulled.id, pulled.digest), (top, pushed[0].digest.clone()));
    let all = PushOptions { reference: format!("{}/team/top", registry.address), ..PushOptions::default() };
    let tags: Vec<String> =
        store.push(all, ProgressSender::none()).await.unwrap().into_iter().map(|pushed| pushed.tag).collect();
    assert_eq!(tags, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_told_in_dockers_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let refused = async |reference: &str| {
        let options = PushOptions { reference: reference.to_owned(), ..PushOptions::default() };
        images::message(&store.push(options, ProgressSender::none()).await.unwrap_err())
    };
    let text = refused("127.0.0.1:1/x:1").await;
    assert_eq!(text, "An image does not exist locally with the tag: 127.0.0.1:1/x");
    let digest = format!("x@sha256:{}", "0".repeat(64));
    assert_eq!(refused(&digest).await, "cannot push a digest reference");
    store.tag(base(&store).await.as_str(), "127.0.0.1:1/x:1").await.unwrap();
    let text = refused("127.0.0.1:1/x:1").await;
    assert!(text.contains("connection refused"), "{text}");
}
