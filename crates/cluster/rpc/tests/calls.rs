//! Calls, streams, raw calls and uploads over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rpc::pulse::PulseServer;
use rpc::{CallError, Client};
use support::{
    Command, Count, Hail, LIMIT, RAW, Running, Swarm, UPLOAD, WAY, Wait, echo, in_time, now, serve,
    serve_with,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use wire::{Callers, Code, RawMethod};

fn code(error: &CallError) -> Option<Code> {
    match error {
        CallError::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

#[tokio::test]
async fn a_call_is_answered_and_its_connection_used_again() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    assert!(!client.is_connected(&running.address));
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
    assert!(client.is_connected(&running.address));
    let offset = client.offset(&running.address).expect("the answer carried the time");
    assert!(offset.by.0.abs() <= offset.within.0 + 2_000_000, "{offset:?}");
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
}

#[tokio::test]
async fn a_stream_ends_as_its_sender_ends_it() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let open = async |count: &str| client.stream::<Count>(&running.address, &count.into(), LIMIT).await;

    let mut one = open("1").await.unwrap();
    assert_eq!(one.peer().unwrap().node.as_str(), "m");
    assert_eq!(one.next().await.unwrap().unwrap(), 0);
    assert!(one.next().await.is_none());
    assert!(one.next().await.is_none(), "and stays at its end");

    let two: Vec<_> = open("2").await.unwrap().collect().await;
    assert_eq!(two.len(), 3, "the refusal is the last: {two:?}");
    assert_eq!(code(two[2].as_ref().unwrap_err()), Some(Code::Aborted));

    let Err(CallError::Refused(refusal)) = open("refuse").await else { panic!("refused at once") };
    assert_eq!((refusal.message.as_str(), refusal.leader.as_deref()), ("no numbers", Some("elsewhere:1")));

    let mut many = open("100000").await.unwrap();
    for expected in 0..100_000 {
        assert_eq!(many.next().await.unwrap().unwrap(), expected);
    }
    for _ in 0..3 {
        assert_eq!(running.line().await, "stream dropped");
    }
    drop(many);
    assert_eq!(running.line().await, "stream dropped", "the sender learns that nobody listens");
}

#[tokio::test]
async fn bytes_and_uploads_arrive_as_they_were() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let client = Client::new(swarm.manager("n"));
    let address = &running.address.clone();
    let answer = client.raw(address, RAW, Bytes::from_static(b"abc"), LIMIT).await.unwrap();
    assert_eq!(answer, "cba");

    // Far beyond what a request may have, in pieces that fit nothing.
    let piece = Bytes::from(vec![1_u8; 999_983]);
    let pieces = stream::iter(0..40).map(move |_| Ok(piece.clone()));
    let answer = client.upload(address, UPLOAD, Bytes::from_static(b"head"), pieces, LIMIT).await.unwrap();
    assert_eq!(answer, format!("head {0} {0}", 40 * 999_983));

    let empty = stream::empty();
    let answer = client.upload(address, UPLOAD, Bytes::new(), empty, LIMIT).await.unwrap();
    assert_eq!(answer, " 0 0");

    let arrived = Arc::new(Semaphore::new(0));
    let breaks = Arc::clone(&arrived);
    let end = stream::once(async move {
        breaks.acquire().await.unwrap().forget();
        Err(io::ErrorKind::NotFound.into())
    });
    let broken = stream::iter([Ok(Bytes::from_static(b"12345"))]).chain(end);
    let upload = client.upload(address, UPLOAD, Bytes::from_static(b"tell"), broken, LIMIT);
    let breaking = async {
        assert_eq!(running.line().await, "uploading");
        arrived.add_permits(1);
    };
    let (failed, ()) = tokio::join!(upload, breaking);
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(echo(&client, address).await.unwrap(), "n says hello", "the connection lives on");
}

#[tokio::test]
async fn too_much_is_refused_on_both_sides() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.manager("n"));
    let address = &running.address;
    let long = vec![0; 4 * 1024 * 1024 + 1];
    let failed = client.raw(address, RAW, long.into(), LIMIT).await.unwrap_err();
    assert_eq!(code(&failed), Some(Code::ResourceExhausted), "{failed}");
    let failed = client.call::<Command>(address, &"4194304".into(), LIMIT).await.unwrap_err();
    assert_eq!(code(&failed), Some(Code::ResourceExhausted), "{failed}");
    let answer = client.call::<Command>(address, &"4190000".into(), LIMIT).await.unwrap();
    assert_eq!(answer.text.len(), 4_190_000);
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.manager("n"));
    let unknown = RawMethod { name: "sing", callers: Callers::Manager };
    let failed = client.raw(&running.address, unknown, Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(
        (code(&failed), failed.to_string()),
        (Some(Code::Unimplemented), "unknown method sing".into())
    );
    let garbled = RawMethod { name: "Echo", callers: Callers::Manager };
    let failed = client.raw(&running.address, garbled, Bytes::from_static(b"{"), LIMIT).await.unwrap_err();
    assert_eq!(code(&failed), Some(Code::InvalidArgument), "{failed}");
}

#[tokio::test]
async fn a_caller_that_gives_up_ends_the_call() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let limit = Duration::from_millis(50);
    let failed = client.call::<Wait>(&running.address, &"x".into(), limit).await.unwrap_err();
    assert!(matches!(failed, CallError::TimedOut { .. }), "{failed}");
    assert!(failed.is_passing());
    assert_eq!(running.line().await, "waiting");
    assert_eq!(running.line().await, "call dropped");
}

#[tokio::test]
async fn nobody_there_is_noticed_at_once() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let address = running.address.clone();
    running.server.shutdown(Duration::ZERO).await;
    let client = Client::new(swarm.worker("w"));
    let failed = echo(&client, &address).await.unwrap_err();
    assert!(matches!(failed, CallError::Unreachable { .. }), "{failed}");
    assert_eq!(failed.to_string(), format!("no connection to {address}"));
}

#[tokio::test]
async fn a_server_that_was_restarted_is_called_without_an_error() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let address = running.address.clone();
    echo(&client, &address).await.unwrap();
    running.server.shutdown(Duration::from_secs(1)).await;
    let _again = serve_with(swarm.manager("m"), address.parse().unwrap(), rpc::ServerOptions::default());
    assert_eq!(echo(&client, &address).await.unwrap(), "w says hello");
}

#[tokio::test]
async fn a_shutdown_lets_calls_end_and_cuts_streams() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let address = running.address.clone();
    let mut numbers = client.stream::<Count>(&address, &"3".into(), LIMIT).await.unwrap();
    let request = "x".into();
    let call = client.call::<Wait>(&address, &request, LIMIT);
    let stop = async {
        assert_eq!(running.line().await, "waiting");
        running.go.add_permits(1);
        running.server.shutdown(Duration::from_millis(200)).await;
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(answer.unwrap().text, "x");
    for expected in 0..3 {
        assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
    }
    assert!(numbers.next().await.unwrap().is_err(), "a cut stream is no end");
    assert!(numbers.next().await.is_none());
    in_time(client.disconnected(&address)).await;
    assert!(!client.is_connected(&address));
}

#[tokio::test]
async fn strangers_that_ask_too_often_are_told_to_wait() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let mut refused = 0;
    for _ in 0..60 {
        if let Err(error) = client.call::<Hail>(&running.address, &"x".into(), LIMIT).await {
            assert_eq!(code(&error), Some(Code::ResourceExhausted), "{error}");
            refused += 1;
        }
    }
    assert!((20..=30).contains(&refused), "{refused} of 60");
    assert_eq!(
        echo(&client, &running.address).await.unwrap(),
        "w says hello",
        "nodes' calls are not counted"
    );
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let client = Client::new(swarm.worker("w"));
    let slow = client.stream::<Count>(&running.address, &"100000000".into(), LIMIT).await.unwrap();
    // Another stream and calls go on over the same connection meanwhile.
    let mut quick = client.stream::<Count>(&running.address, &"1000".into(), LIMIT).await.unwrap();
    for expected in 0..1000 {
        assert_eq!(quick.next().await.unwrap().unwrap(), expected);
    }
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
    drop(slow);
    assert_eq!(running.line().await, "stream dropped");
}

/// Not a benchmark of the machine: only an order of magnitude that a mistake (a delay, a connection per call) would miss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_take_well_under_a_millisecond() {
    const CALLS: u32 = 2000;
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let client = Client::new(swarm.manager("n"));
    let body = Bytes::from_static(&[7; 100]);
    for _ in 0..100 {
        client.raw(&running.address, RAW, body.clone(), LIMIT).await.unwrap();
    }
    let mut times = Vec::new();
    let start = now();
    for _ in 0..CALLS {
        let one = Instant::now();
        client.raw(&running.address, RAW, body.clone(), LIMIT).await.unwrap();
        times.push(one.elapsed());
    }
    times.sort();
    println!("median {:?}, all {} ms", times[times.len() / 2], now().since(start).0 / 1_000_000);
    assert!(times[times.len() / 2] < Duration::from_millis(2), "{:?}", times[times.len() / 2]);
}

/// Has a server answer small calls.
fn hear_datagrams(running: &Running) -> JoinHandle<()> {
    let pulses = PulseServer::bind(running.address.parse().unwrap()).unwrap();
    let mut pulses = pulses.answering(running.server.visitors());
    tokio::spawn(async move {
        // No pulse comes.
        drop(pulses.next(|_| None).await);
    })
}

async fn way(client: &Client, address: &str) -> Result<String, CallError> {
    let answer = client.small(address, WAY, Bytes::from_static(b"body"), LIMIT).await?;
    Ok(String::from_utf8(answer.to_vec()).unwrap())
}

#[tokio::test]
async fn a_small_call_goes_beside_the_connection_once_there_is_one() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let hearing = hear_datagrams(&running);
    let client = Client::new(swarm.manager("n"));
    assert_eq!(way(&client, &running.address).await.unwrap(), "connection", "it is made first");
    for _ in 0..3 {
        assert_eq!(way(&client, &running.address).await.unwrap(), "datagram");
    }
    running.server.visitors().disconnect(|_| true);
    in_time(client.disconnected(&running.address)).await;
    assert_eq!(way(&client, &running.address).await.unwrap(), "connection", "the line has ended with it");
    assert_eq!(way(&client, &running.address).await.unwrap(), "datagram");
    // Another process has the port now, which knows no line: an address that answers, but not this way.
    hearing.abort();
    drop(hearing.await);
    let _deaf = std::net::UdpSocket::bind(&running.address).unwrap();
    let limit = Duration::from_millis(250);
    for _ in 0..3 {
        let answer = client.small(&running.address, WAY, Bytes::new(), limit).await.unwrap();
        assert_eq!(&answer[..], b"connection");
    }
    let long = Bytes::from(vec![7; 2000]);
    assert_eq!(client.small(&running.address, RAW, long.clone(), LIMIT).await.unwrap(), long);
}

#[tokio::test]
async fn a_small_call_is_answered_to_those_who_may_call() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let hearing = hear_datagrams(&running);
    let client = Client::new(swarm.worker("w"));
    assert_eq!(echo(&client, &running.address).await.unwrap(), "w says hello");
    let error = way(&client, &running.address).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::PermissionDenied));
    hearing.abort();
}
