//! What was acknowledged survives every kind of stop, and damage is refused with advice.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use objects::{Service, ServiceId, ServiceSpec, Timestamp};
use raft::{Consensus, FeedItem, OpenError, ProposeError, RaftConfig};
use store::Write;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn config(directory: &Path, found: bool) -> RaftConfig {
    RaftConfig { directory: directory.to_owned(), node: 7, address: "127.0.0.1:2377".into(), found }
}

async fn open(directory: &Path, found: bool) -> Consensus {
    Consensus::open(config(directory, found)).await.expect("a usable log")
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
    let started = Instant::now();
    let log = open(root.path(), false).await;
    let took = started.elapsed();
    assert_eq!(log.read().services().count(), 50);
    assert!(before.services().eq(log.read().services()));
    assert!(log.leadership().is_leader());
    // Election timeouts are ten seconds: the bound only has to tell them from disk writes.
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("restart took {took:?}");
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

    let mut rotten = whole.clone();
    let needle = b"needle013";
    let mut found = 0;
    for at in 0..rotten.len() - needle.len() {
        if rotten[at..].starts_with(needle) {
            rotten[at] = b'N';
            found += 1;
        }
    }
    assert!(found > 0, "the entry is in the file");
    std::fs::write(&path, rotten).unwrap();
    refused(&live).await;

    std::fs::remove_file(&path).unwrap();
    refused(&live).await;

    std::fs::write(&path, &whole).unwrap();
    open(&live, false).await.stop().await;
}

async fn refused(directory: &Path) {
    match Consensus::open(config(directory, false)).await {
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
    let second = Consensus::open(config(root.path(), false)).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    log.stop().await;
    drop(log);
    let other = Consensus::open(RaftConfig { node: 8, ..config(root.path(), false) }).await;
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
    let limit = Instant::now() + Duration::from_secs(20);
    while !snapshot.exists() {
        assert!(Instant::now() < limit, "no snapshot after {last} entries");
        tokio::task::yield_now().await;
    }
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
    let damaged = Consensus::open(config(root.path(), false)).await;
    assert!(matches!(damaged, Err(OpenError::Snapshot { .. })));
}
