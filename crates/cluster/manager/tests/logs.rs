//! Logs of tasks: a client reads them at one manager, their node has its session with another.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::Duration;

use docker::filters::Filters;
use manager::IncompleteLogs;
use rpc::{Client, Subscription};
use support::{Machine, Papers, Swarm, open, soon, spec, until};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wire::logs::{Heard, LogPart, LogWish, LogsOf, PieceHead, TELL_LOGS, piece};
use wire::session::SessionMessage;

const TAKEN: Heard = Heard { goes_on: true, is_taken: true };

/// A worker with a task, and clients of a manager that the worker has no session with.
struct Bench {
    swarm: Swarm,
    runtime: Runtime,
    worker: Papers,
    client: Client,
    service: String,
    session: Option<Subscription<SessionMessage>>,
    reader_at: usize,
}

impl Bench {
    fn new() -> Self {
        let swarm = Swarm::new(3);
        until("all are reachable", || swarm.is_whole());
        let worker = swarm.add_worker();
        let session_at = swarm.follower();
        let reader_at = (0..3).find(|index| *index != session_at).unwrap();
        let runtime = Runtime::new().unwrap();
        let client = Client::new(worker.tls());
        let at = swarm.machines[session_at].address.to_string();
        let session = runtime.block_on(soon(open(&client, &at))).unwrap();
        let machine = &swarm.machines[reader_at];
        let mut wanted = spec("web", 1);
        // The managers of this test run nothing.
        wanted.task_template.placement = Some(objects::Placement {
            constraints: vec!["node.role==worker".to_owned()],
            ..objects::Placement::default()
        });
        let created = machine.block_on(machine.manager().create_service(wanted, None)).unwrap();
        until("the task is on the worker", || {
            let tasks = machine.manager().tasks(&Filters::default()).unwrap();
            tasks.iter().any(|task| task["NodeID"] == worker.node.as_str())
        });
        let service = created.id.to_string();
        Self { swarm, runtime, worker, client, service, session: Some(session), reader_at }
    }

    fn machine(&self) -> &Machine {
        &self.swarm.machines[self.reader_at]
    }

    /// What a client reads, until it drops the receiver.
    fn read(&self, follow: bool) -> UnboundedReceiver<Result<String, IncompleteLogs>> {
        let (sender, told) = unbounded_channel();
        let part = LogPart { follow, stdout: true, ..LogPart::default() };
        let of = LogsOf::Service { id: self.service.as_str().into() };
        let manager = self.machine().manager().clone();
        self.machine().block_on(async {
            drop(tokio::spawn(async move {
                let mut reader = manager.read_logs(of, part);
                let next = async {
                    while let Some(piece) = reader.next().await {
                        let text = piece.map(|entries| String::from_utf8(entries.to_vec()).unwrap());
                        sender.send(text).unwrap();
                    }
                };
                tokio::select! { () = next => {} () = sender.closed() => {} }
            }));
        });
        told
    }

    /// The next wish that the session passes on.
    fn wish(&mut self) -> LogWish {
        let session = self.session.as_mut().expect("it is open");
        self.runtime.block_on(soon(async {
            loop {
                match session.next().await {
                    Some(Ok(SessionMessage::Logs(wish))) => return *wish,
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }))
    }

    fn tell(&self, wish: &LogWish, number: u64, is_last: bool, text: &str) -> Heard {
        let head = PieceHead { id: wish.id.clone(), number, is_last };
        let body = piece(&head, text.as_bytes()).into();
        let told = self.client.raw(&wish.address, TELL_LOGS, body, Duration::from_secs(10));
        serde_json::from_slice(&self.runtime.block_on(soon(told)).unwrap()).unwrap()
    }
}

#[test]
fn a_node_tells_the_manager_that_asked_whichever_has_its_session() {
    let mut bench = Bench::new();
    let mut told = bench.read(false);
    let wish = bench.wish();
    assert_eq!(wish.of, LogsOf::Service { id: bench.service.as_str().into() });
    assert_eq!(wish.manager, bench.machine().papers.node);
    assert_eq!(bench.tell(&wish, 1, false, "one\n"), TAKEN);
    assert_eq!(bench.tell(&wish, 2, false, ""), TAKEN);
    // As when the answer to the first was lost.
    assert_eq!(bench.tell(&wish, 1, false, "one\n"), TAKEN);
    assert_eq!(bench.tell(&wish, 3, true, "two\n"), TAKEN);
    let next = |told: &mut UnboundedReceiver<_>| bench.runtime.block_on(soon(told.recv()));
    assert_eq!(next(&mut told), Some(Ok("one\n".to_owned())));
    assert_eq!(next(&mut told), Some(Ok("two\n".to_owned())));
    assert_eq!(next(&mut told), None, "its only node has told everything");
    assert_eq!(bench.tell(&wish, 4, false, "late"), Heard::default(), "nobody reads any more");
}

#[test]
fn a_reader_that_leaves_ends_the_telling() {
    let mut bench = Bench::new();
    let told = bench.read(true);
    let wish = bench.wish();
    assert!(wish.part.follow);
    assert_eq!(bench.tell(&wish, 1, true, "one\n"), TAKEN);
    drop(told);
    until("the manager notices", || bench.tell(&wish, 2, false, "") == Heard::default());
}

#[test]
fn a_node_that_is_not_there_is_named_at_the_end() {
    let mut bench = Bench::new();
    bench.session = None;
    let gone = IncompleteLogs { nodes: vec![bench.worker.node.clone()] };
    // Its session may be open for a moment longer, and take a wish that nobody reads.
    let mut told = bench.read(false);
    assert_eq!(bench.runtime.block_on(soon(told.recv())), Some(Err(gone.clone())));
    let text = format!("node {} is not available", bench.worker.node);
    assert!(gone.to_string().ends_with(&text), "{gone}");
}
