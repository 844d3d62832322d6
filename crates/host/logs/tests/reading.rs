//! A log that was written can be read: from its end, by time, while it grows and rotates, and when it is damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logs::{JsonFileSpec, LogMessage, LogSpec, OutputStream, ReadOptions, Reader, Tail, Writer};
use objects::Timestamp;
use tokio::sync::watch;

/// Longest wait for something that must happen. Never waited for when the code is right.
const PATIENCE: Duration = Duration::from_secs(10);

struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
    writer: Writer,
}

fn log(max_size: Option<u64>, max_files: u32) -> Log {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    let spec = JsonFileSpec { path: path.clone(), max_size, max_files, attrs: BTreeMap::new() };
    Log { path, writer: Writer::open(&LogSpec::JsonFile(spec)).unwrap(), _dir: dir }
}

impl Log {
    fn write(&mut self, number: i64) {
        let stream = if number % 2 == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
        self.writer.write(stream, format!("{number}\n").as_bytes(), second(number));
    }
}

fn second(number: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + number)
}

fn number(message: &LogMessage) -> i64 {
    str::from_utf8(&message.line).unwrap().trim_end().parse().unwrap()
}

async fn next(reader: &mut Reader) -> Option<i64> {
    let message = tokio::time::timeout(PATIENCE, reader.next()).await.expect("an entry in time").unwrap();
    message.as_ref().map(number)
}

async fn numbers(path: &Path, options: ReadOptions) -> Vec<i64> {
    let mut reader = Reader::open(path, options).await.unwrap();
    let mut found = Vec::new();
    while let Some(number) = next(&mut reader).await {
        found.push(number);
    }
    found
}

fn last(count: u64) -> ReadOptions {
    ReadOptions { tail: Tail::Last(count), ..ReadOptions::default() }
}

fn append(path: &Path, text: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text).unwrap();
}

#[tokio::test]
async fn the_tail_reaches_back_over_rotated_files() {
    let mut log = log(Some(1_000), 5);
    for number in 0..40 {
        log.write(number);
    }
    assert!(log.path.with_extension("log.2").exists());
    for count in [0, 1, 7, 20, 39, 40, 41, 1_000] {
        let expected: Vec<_> = (0..40).skip(40_usize.saturating_sub(count)).collect();
        assert_eq!(numbers(&log.path, last(count as u64)).await, expected, "tail {count}");
    }
    assert_eq!(numbers(&log.path, ReadOptions::default()).await, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_tail_of_a_large_file_is_found_block_by_block() {
    let mut log = log(None, 1);
    for number in 0..3_000 {
        log.write(number);
    }
    assert_eq!(numbers(&log.path, last(1_500)).await, (1_500..3_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn since_and_until_are_inclusive_and_bound_the_tail() {
    let mut log = log(Some(2_000), 10);
    for number in 0..200 {
        log.write(number);
    }
    let between =
        ReadOptions { since: Some(second(100)), until: Some(second(110)), ..ReadOptions::default() };
    assert_eq!(numbers(&log.path, between).await, (100..=110).collect::<Vec<_>>());
    let until = ReadOptions { until: Some(second(50)), ..last(3) };
    assert_eq!(numbers(&log.path, until).await, [48, 49, 50]);
    let since = ReadOptions { since: Some(second(198)), ..last(10) };
    assert_eq!(numbers(&log.path, since).await, [198, 199]);
}

#[tokio::test]
async fn damaged_lines_are_passed_over() {
    let mut log = log(None, 1);
    log.write(0);
    append(&log.path, b"not json\n\n\0\0\0\0\n{\"log\":\"x\n");
    log.write(1);
    append(&log.path, &vec![b'z'; 3 * 1024 * 1024]);
    append(&log.path, b"\n");
    log.write(2);
    append(&log.path, b"{\"log\":\"torn");
    assert_eq!(numbers(&log.path, ReadOptions::default()).await, [0, 1, 2]);
    assert_eq!(numbers(&log.path, last(1)).await, [2]);
    assert_eq!(numbers(&log.path, last(2)).await, [1, 2]);
    assert_eq!(numbers(&log.path, last(9)).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_missing_or_empty_log_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    assert_eq!(numbers(&path, ReadOptions::default()).await, [0; 0]);
    fs::write(&path, "").unwrap();
    assert_eq!(numbers(&path, last(5)).await, [0; 0]);
    fs::write(&path, "\n").unwrap();
    assert_eq!(numbers(&path, last(5)).await, [0; 0]);
}

#[tokio::test]
async fn following_loses_nothing_when_the_log_rotates_under_it() {
    let mut log = log(Some(5_000), 3);
    let (end, ended) = watch::channel(false);
    let mut reader = Reader::open(&log.path, ReadOptions { follow: Some(ended), ..last(0) }).await.unwrap();
    // In steps smaller than what the files hold, so that nothing may be lost.
    for step in 0..50 {
        for number in 0..37 {
            log.write(step * 37 + number);
        }
        for number in 0..37 {
            assert_eq!(next(&mut reader).await, Some(step * 37 + number));
        }
    }
    log.write(9_999);
    end.send(true).unwrap();
    assert_eq!(next(&mut reader).await, Some(9_999));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(next(&mut reader).await, None);
}

#[tokio::test]
async fn a_follower_that_fell_behind_goes_on_with_the_oldest_file_left() {
    let mut log = log(Some(500), 2);
    let (end, ended) = watch::channel(false);
    log.write(0);
    let mut reader =
        Reader::open(&log.path, ReadOptions { follow: Some(ended), ..ReadOptions::default() }).await.unwrap();
    assert_eq!(next(&mut reader).await, Some(0));
    for number in 1..100 {
        log.write(number);
    }
    drop(end);
    let mut found = Vec::new();
    while let Some(number) = next(&mut reader).await {
        found.push(number);
    }
    assert_eq!(found.last(), Some(&99));
    assert!(found.is_sorted() && found.len() > 6, "{found:?}");
}

#[tokio::test]
async fn a_follower_waits_for_the_rest_of_a_line() {
    let mut log = log(None, 1);
    let (_end, ended) = watch::channel(false);
    let mut reader =
        Reader::open(&log.path, ReadOptions { follow: Some(ended), ..ReadOptions::default() }).await.unwrap();
    append(&log.path, b"{\"log\":\"1\\n\",\"stream\":\"stdout\",\"time\":\"2023-");
    assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
    append(&log.path, b"11-14T22:13:20Z\"}\n");
    assert_eq!(next(&mut reader).await, Some(1));
    log.write(2);
    assert_eq!(next(&mut reader).await, Some(2));
}

#[tokio::test]
async fn a_follower_ends_after_until() {
    let mut log = log(None, 1);
    let (_end, ended) = watch::channel(false);
    log.write(1);
    let options = ReadOptions { follow: Some(ended), until: Some(second(5)), ..ReadOptions::default() };
    let mut reader = Reader::open(&log.path, options).await.unwrap();
    assert_eq!(next(&mut reader).await, Some(1));
    log.write(5);
    log.write(6);
    assert_eq!(next(&mut reader).await, Some(5));
    assert_eq!(next(&mut reader).await, None);
}

#[tokio::test]
async fn a_log_emptied_by_hand_goes_on() {
    let mut log = log(None, 1);
    let (_end, ended) = watch::channel(false);
    log.write(1);
    let mut reader =
        Reader::open(&log.path, ReadOptions { follow: Some(ended), ..ReadOptions::default() }).await.unwrap();
    assert_eq!(next(&mut reader).await, Some(1));
    OpenOptions::new().write(true).open(&log.path).unwrap().set_len(0).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
    log.write(2);
    assert_eq!(next(&mut reader).await, Some(2));
}
