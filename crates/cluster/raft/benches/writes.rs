//! Writes per second of one and of three managers on a real disk with a network without latency, and what an idle leader
//! costs.
//!
//! `cargo bench -p raft`; the directory is where `TMPDIR` says.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails says so, and prints its results"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use objects::{Service, ServiceId, ServiceSpec, Timestamp};
use raft::{
    Call, CallError, Consensus, DataKey, DataKeys, Directory, Member, RaftConfig, SnapshotStream, Start,
    Transport,
};
use store::Write;

const RUN: Duration = Duration::from_secs(3);

#[derive(Clone, Default)]
struct Switchboard(Arc<Mutex<BTreeMap<u64, Consensus>>>);

#[derive(Debug, thiserror::Error)]
#[error("nobody is there")]
struct Nobody;

impl Switchboard {
    fn find(&self, to: &Member) -> Result<Consensus, CallError> {
        let found = self.0.lock().unwrap().get(&to.raft_id).cloned();
        found.ok_or_else(|| CallError::Closed(Nobody.into()))
    }
}

impl Transport for Switchboard {
    fn call(
        &self,
        to: &Member,
        call: Call,
        body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let found = self.find(to);
        async move {
            let answering = tokio::spawn(async move { found?.answer(call, body).await.map_err(refused) });
            answering.await.unwrap()
        }
        .boxed()
    }

    fn snapshot(
        &self,
        to: &Member,
        header: Bytes,
        body: SnapshotStream,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let found = self.find(to);
        async move { found?.answer_snapshot(header, body).await.map_err(refused) }.boxed()
    }
}

fn refused(error: raft::AnswerError) -> CallError {
    CallError::Refused(error.into())
}

async fn open(board: &Switchboard, root: &Path, node: u64, start: Start) -> Consensus {
    let consensus = Consensus::open(RaftConfig {
        disk: Arc::new(Directory::new(root.join(node.to_string())).unwrap()),
        node,
        address: format!("n{node}:1"),
        start,
        keys: DataKeys::only(DataKey::random()),
        transport: Arc::new(board.clone()),
    })
    .await
    .unwrap();
    board.0.lock().unwrap().insert(node, consensus.clone());
    consensus
}

fn create(name: &str) -> Vec<Write> {
    let spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    vec![Write::Create(Service::new(ServiceId::from(name), spec).into())]
}

async fn writes_per_second(leader: &Consensus, proposers: usize, label: &str) {
    let until = Instant::now() + RUN;
    let mut running = tokio::task::JoinSet::new();
    for proposer in 0..proposers {
        let (leader, label) = (leader.clone(), label.to_owned());
        running.spawn(async move {
            let mut written = 0_u32;
            while Instant::now() < until {
                let name = format!("{label}-{proposers}-{proposer}-{written}");
                leader.propose(Timestamp(1), create(&name)).await.unwrap();
                written += 1;
            }
            written
        });
    }
    let written: u32 = running.join_all().await.into_iter().sum();
    println!("{label}, {proposers:2} proposers: {:7.0} writes/s", f64::from(written) / RUN.as_secs_f64());
}

/// Time on the processor of this process so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    // 100 ticks a second: what Linux shows to programs.
    Duration::from_millis(ticks * 10)
}

async fn measure() {
    let root = tempfile::tempdir().unwrap();
    let board = Switchboard::default();
    let leader = open(&board, root.path(), 1, Start::Found).await;
    for proposers in [1, 16, 64] {
        writes_per_second(&leader, proposers, "1 manager ").await;
    }
    for node in [2, 3] {
        open(&board, root.path(), node, Start::Join { epoch: leader.epoch() }).await;
        leader.add_learner(Member { raft_id: node, address: format!("n{node}:1") }).await.unwrap();
        leader.promote(node).await.unwrap();
    }
    for proposers in [1, 16, 64] {
        writes_per_second(&leader, proposers, "3 managers").await;
    }
    let before = processor_time();
    tokio::time::sleep(RUN * 3).await;
    let share = (processor_time() - before).as_secs_f64() / (RUN * 3).as_secs_f64();
    println!("3 idle managers in one process: {:.2} % of a core", share * 100.0);
    let (began, other) =
        (Instant::now(), board.find(&Member { raft_id: 2, address: String::new() }).unwrap());
    leader.stop().await;
    let mut watch = other.members();
    watch.wait_for(|members| members.leader.is_some_and(|leader| leader != 1)).await.unwrap();
    println!("a leader that stops is replaced after {:?}", began.elapsed());
    board.0.lock().unwrap().remove(&1);
    let left = std::mem::take(&mut *board.0.lock().unwrap());
    for log in left.into_values() {
        log.stop().await;
    }
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
