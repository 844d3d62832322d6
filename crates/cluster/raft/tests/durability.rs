//! What was acknowledged survives every kind of stop, and damage is refused with advice.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use objects::{Service, ServiceId, ServiceSpec, Timestamp};
use raft::{
    Consensus, DataKey, DataKeys, Directory, FeedItem, NoTransport, OpenError, ProposeError, RaftConfig,
    Start,
};
use store::Write;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn config(directory: &Path, start: Start) -> RaftConfig {
    RaftConfig {
        disk: Arc::new(Directory::new(directory).unwrap()),
        node: 7,
        address: "127.0.0.1:2377".into(),
        start,
        keys: keys(1),
        transport: Arc::new(NoTransport),
    }
}

fn keys(byte: u8) -> DataKeys {
    DataKeys::only(DataKey::new([byte; 32]))
}

async fn open(directory: &Path, found: bool) -> Consensus {
    let start = if found { Start::Found } else { Start::Existing };
    Consensus::open(config(directory, start)).await.expect("a usable log")
}

fn create(name: &str) -> Vec<Write> {
    let spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    vec![Write::Create(Service::new(ServiceId::from(name), spec).into())]
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_manager_leads_at_once_with_everything_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    for number in 0..50 {
        log.propose(NOW, create(&format!("s{number}"))).await.unwrap();
    }
    let before = log.read().clone();
    log.stop().await;
    let log = open(root.path(), false).await;
    assert_eq!(log.read().services().count(), 50);
    assert!(before.services().eq(log.read().services()));
    assert!(log.leadership().is_leader());
    log.propose(NOW, create("after")).await.unwrap();
    log.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_the_disk_taken_under_load_has_every_acknowledged_write() {
    let root = tempfile::tempdir().unwrap();
    let log = open(&root.path().join("live"), true).await;
    let mut acknowledged = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..200 {
        let log = log.clone();
        running.spawn(async move {
            let name = format!("s{number:03}");
            log.propose(NOW, create(&name)).await.map(|_| name)
        });
        if number % 20 == 19 {
            while let Some(done) = running.join_next().await {
                acknowledged.push(done.unwrap().unwrap());
            }
            // The same bytes a crash at this moment would leave: nothing was closed or flushed for the copy.
            let image = root.path().join(format!("image{number}"));
            copy(&root.path().join("live"), &image);
            let restored = open(&image, false).await;
            eprintln!(
                "applied {} of {} has {}",
                restored.applied_index(),
                acknowledged.len(),
                restored.read().services().count()
            );
            for name in &acknowledged {
                assert!(restored.read().find_service(name).is_ok(), "{name} is lost in image {number}");
            }
            restored.stop().await;
        }
    }
    log.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_changes_nothing_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    log.propose(NOW, create("web")).await.unwrap();
    let mut writes = create("other");
    writes.extend(create("web"));
    let refused = log.propose(NOW, writes).await;
    assert!(matches!(refused, Err(ProposeError::Refused(store::ApplyError::Exists { .. }))), "{refused:?}");
    assert_eq!(log.read().services().count(), 1);
    log.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_too_large_is_refused_before_it_waits() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    let refused = log.propose(NOW, create(&"x".repeat(2 << 20))).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    log.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_has_every_change_in_order() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    log.propose(NOW, create("before")).await.unwrap();
    let (seen, mut feed) = log.follow(|store| store.services().count());
    assert_eq!(seen, 1);
    for number in 0..20 {
        log.propose(NOW, create(&format!("s{number}"))).await.unwrap();
    }
    for number in 0..20 {
        let Some(FeedItem::Commit(commit)) = feed.next().await else { panic!("no resync is due") };
        assert_eq!(commit.changes[0].id, format!("s{number}"));
    }
    log.stop().await;
    assert!(feed.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_damaged_bytes_is_refused_with_advice() {
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("live");
    let log = open(&live, true).await;
    for number in 0..20 {
        log.propose(NOW, create(&format!("needle{number:03}"))).await.unwrap();
    }
    log.stop().await;
    let path = live.join("log.redb");
    let whole = std::fs::read(&path).unwrap();

    let cut = &whole[..whole.len() / 3];
    std::fs::write(&path, cut).unwrap();
    refused(&live).await;

    // Wherever a byte rots: either nothing was there, or the log is refused. Never is anything silently different.
    let mut refusals = 0;
    for part in 0..200 {
        let mut rotten = whole.clone();
        let at = whole.len() / 200 * part + part % 61;
        rotten[at] ^= 0x10;
        std::fs::write(&path, rotten).unwrap();
        match Consensus::open(config(&live, Start::Existing)).await {
            Err(OpenError::Log { .. } | OpenError::WrongKey { .. }) => refusals += 1,
            Err(other) => panic!("another error: {other:?}"),
            Ok(log) => {
                assert_eq!(log.read().services().count(), 20, "a rotten byte at {at}");
                log.stop().await;
            }
        }
    }
    assert!(refusals > 0, "no rotten byte was in a record");

    std::fs::remove_file(&path).unwrap();
    refused(&live).await;

    std::fs::write(&path, &whole).unwrap();
    open(&live, false).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_on_disk_is_plain_text_and_another_key_opens_nothing() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    log.propose(NOW, create("a-very-secret-name")).await.unwrap();
    log.snapshot().await.unwrap();
    wait_for(&root.path().join("snapshot")).await;
    log.propose(NOW, create("another-secret-name")).await.unwrap();
    log.stop().await;
    drop(log);
    assert_eq!(files_with(root.path(), b"secret-name"), 0);
    let other = Consensus::open(RaftConfig { keys: keys(2), ..config(root.path(), Start::Existing) }).await;
    assert!(matches!(other, Err(OpenError::WrongKey { .. })));
    let log = open(root.path(), false).await;
    assert_eq!(log.read().services().count(), 2);
    log.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_of_keys_the_old_one_opens_nothing_and_before_its_end_both_do() {
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("live");
    let log = open(&live, true).await;
    for number in 0..1500 {
        log.propose(NOW, create(&format!("s{number}"))).await.unwrap();
        if number == 1000 {
            log.snapshot().await.unwrap();
            wait_for(&live.join("snapshot")).await;
        }
    }
    let rekeying = tokio::spawn({
        let log = log.clone();
        async move { log.rekey(DataKey::new([2; 32])).await.unwrap() }
    });
    let both = DataKeys { current: DataKey::new([2; 32]), former: vec![DataKey::new([1; 32])] };
    let mut images = 0;
    while !rekeying.is_finished() {
        // The same bytes a crash at this moment would leave.
        let image = root.path().join(format!("image{images}"));
        copy(&live, &image);
        images += 1;
        let restored = Consensus::open(RaftConfig { keys: both.clone(), ..config(&image, Start::Existing) })
            .await
            .unwrap();
        assert_eq!(restored.read().services().count(), 1500);
        restored.stop().await;
    }
    rekeying.await.unwrap();
    log.propose(NOW, create("after")).await.unwrap();
    log.stop().await;
    drop(log);
    let old = Consensus::open(config(&live, Start::Existing)).await;
    assert!(matches!(old, Err(OpenError::WrongKey { .. })));
    let log = Consensus::open(RaftConfig { keys: keys(2), ..config(&live, Start::Existing) }).await.unwrap();
    assert_eq!(log.read().services().count(), 1501);
    log.stop().await;
}

async fn wait_for(path: &Path) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < limit, "{path:?} does not appear");
        tokio::task::yield_now().await;
    }
}

fn files_with(directory: &Path, needle: &[u8]) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .filter(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
        .count()
}

async fn refused(directory: &Path) {
    match Consensus::open(config(directory, Start::Existing)).await {
        Err(error @ OpenError::Log { .. }) => {
            assert!(error.to_string().contains("restore the swarm directory from a backup"), "{error}");
        }
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("a damaged log was opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_another_manager_and_a_log_in_use_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    let second = Consensus::open(config(root.path(), Start::Existing)).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    log.stop().await;
    drop(log);
    let other = Consensus::open(RaftConfig { node: 8, ..config(root.path(), Start::Existing) }).await;
    assert!(matches!(other, Err(OpenError::Log { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_takes_the_place_of_old_entries() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), true).await;
    let mut last = 0;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..10_600 {
        let log = log.clone();
        running.spawn(async move { log.propose(NOW, create(&format!("s{number}"))).await.unwrap().index });
        if running.len() > 500 {
            last = last.max(running.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(done) = running.join_next().await {
        last = last.max(done.unwrap());
    }
    assert!(last > 10_000);
    let snapshot = root.path().join("snapshot");
    wait_for(&snapshot).await;
    log.stop().await;
    drop(log);
    let log = open(root.path(), false).await;
    assert_eq!(log.read().services().count(), 10_600);
    log.stop().await;
    drop(log);

    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let damaged = Consensus::open(config(root.path(), Start::Existing)).await;
    assert!(matches!(damaged, Err(OpenError::Snapshot { .. })));
}
