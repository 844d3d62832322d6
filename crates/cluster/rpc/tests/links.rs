//! Connections that close, freeze, are slow, or lead nowhere.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use rpc::{CallError, Client, ServerOptions};
use support::{Count, LIMIT, Swarm, Wait, echo, in_time, serve, serve_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a link does with bytes.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    /// Hands them on after a while.
    Delay(Duration),
    /// Keeps them: a cable that was pulled, or a machine that stands still.
    Frozen,
}

/// A link to `to`; what it does can be changed.
async fn link(to: &str, what: Link) -> (String, watch::Sender<Link>, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (change, state) = watch::channel(what);
    let to = to.to_owned();
    let mut owner = JoinSet::new();
    owner.spawn(async move {
        let mut pipes = JoinSet::new();
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(&to).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            pipes.spawn(carry(near_read, far_write, state.clone()));
            pipes.spawn(carry(far_read, near_write, state.clone()));
        }
    });
    (address, change, owner)
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Link>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let wait = match *state.borrow() {
            Link::Delay(wait) => wait,
            Link::Frozen => Duration::ZERO,
        };
        tokio::time::sleep(wait).await;
        if state.wait_for(|state| *state != Link::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A server on a runtime of its own, which can be ended like a killed process: its sockets close, nothing is said.
struct Process {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<support::Running>,
}

impl Process {
    async fn start(swarm: &Swarm) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tls = swarm.manager("m");
        let running = runtime.spawn(async move { serve(tls) }).await.unwrap();
        Self { address: running.address.clone(), runtime: Some(runtime), running: Some(running) }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        // Only now, so that it says no goodbye.
        self.running.take();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a connection ended.
fn kind<T: std::fmt::Debug>(result: Result<T, CallError>) -> io::ErrorKind {
    match result {
        Err(CallError::Unreachable { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_is_noticed_at_once() {
    let swarm = Swarm::new("swarm");
    let mut process = Process::start(&swarm).await;
    let address = process.address.clone();
    let client = Client::new(swarm.worker("w"));
    let mut stream = client.stream::<Count>(&address, &"3".into(), LIMIT).await.unwrap();
    for expected in 0..3 {
        assert_eq!(stream.next().await.unwrap().unwrap(), expected);
    }
    let request = "x".into();
    let call = client.call::<Wait>(&address, &request, LIMIT);
    let mut call = std::pin::pin!(call);
    let pending = tokio::time::timeout(Duration::from_millis(50), call.as_mut()).await;
    assert!(pending.is_err());
    process.kill();
    assert_eq!(kind(in_time(stream.next()).await.unwrap()), io::ErrorKind::ConnectionAborted);
    assert!(stream.next().await.is_none());
    assert_eq!(kind(call.await), io::ErrorKind::ConnectionAborted);
    assert_eq!(kind(echo(&client, &address).await), io::ErrorKind::ConnectionRefused);
    in_time(client.disconnected(&address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_caller_is_noticed_at_once() {
    let swarm = Swarm::new("swarm");
    let mut running = serve(swarm.manager("m"));
    let mut departures = running.server.visitors().departures();
    let address = running.address.clone();
    let tls = swarm.worker("w");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let calling = runtime.spawn(async move {
        let client = Client::new(tls);
        let mut stream = client.stream::<Count>(&address, &"1000000".into(), LIMIT).await.unwrap();
        stream.next().await.unwrap().unwrap();
        (client, stream)
    });
    let alive = calling.await.unwrap();
    runtime.shutdown_background();
    assert_eq!(running.line().await, "stream dropped");
    assert_eq!(in_time(departures.recv()).await.unwrap().as_str(), "w");
    drop(alive);
}

#[tokio::test]
async fn a_frozen_link_is_given_up_within_two_seconds() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let (address, change, _owner) = link(&running.address, Link::Delay(Duration::ZERO)).await;
    let client = Client::new(swarm.worker("w"));
    let mut stream = client.stream::<Count>(&address, &"1".into(), LIMIT).await.unwrap();
    let mut idle = client.stream::<Count>(&address, &"3".into(), LIMIT).await.unwrap();
    for expected in 0..3 {
        assert_eq!(idle.next().await.unwrap().unwrap(), expected);
    }
    assert_eq!(stream.next().await.unwrap().unwrap(), 0);
    change.send_replace(Link::Frozen);
    let request = "x".into();
    let call = client.call::<support::Echo>(&address, &request, LIMIT);
    let (broken, unanswered) = tokio::join!(in_time(idle.next()), call);
    assert_eq!(kind(broken.unwrap()), io::ErrorKind::TimedOut);
    assert_eq!(kind(unanswered), io::ErrorKind::TimedOut);
    assert!(!client.is_connected(&address));

    // A fresh connection is made at once when the link is back.
    change.send_replace(Link::Delay(Duration::ZERO));
    assert_eq!(echo(&client, &address).await.unwrap(), "w says hello");
}

#[tokio::test]
async fn a_slow_link_is_used_however_slow() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let (address, _change, _owner) = link(&running.address, Link::Delay(Duration::from_millis(400))).await;
    let client = Client::new(swarm.worker("w"));
    let mut stream = client.stream::<Count>(&address, &"3".into(), LIMIT).await.unwrap();
    for expected in 0..3 {
        assert_eq!(stream.next().await.unwrap().unwrap(), expected);
    }
    // Silent for longer than a ping takes to fail, the connection stays.
    let next = tokio::time::timeout(Duration::from_secs(4), stream.next()).await;
    assert!(next.is_err(), "{next:?}");
    assert_eq!(echo(&client, &address).await.unwrap(), "w says hello");
    let offset = client.offset(&address).unwrap();
    assert!(offset.by.0.abs() <= offset.within.0, "{offset:?}");
}

#[tokio::test]
async fn a_connection_is_made_though_its_first_caller_cannot_wait_for_it() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let (address, _change, _owner) = link(&running.address, Link::Delay(Duration::from_millis(150))).await;
    let client = Client::new(swarm.worker("w"));
    let mut tries = 0;
    loop {
        tries += 1;
        let limit = Duration::from_millis(400);
        match client.call::<support::Echo>(&address, &"x".into(), limit).await {
            Ok(_) => break,
            Err(CallError::TimedOut { .. }) => assert!(tries < 10, "never connected"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(tries > 1, "the handshake alone takes longer");
}

#[tokio::test]
async fn an_address_that_swallows_everything_costs_its_limit() {
    let swarm = Swarm::new("swarm");
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let client = Client::new(swarm.worker("w"));
    let limit = Duration::from_millis(100);
    let failed = client.call::<support::Echo>(&address, &"x".into(), limit).await.unwrap_err();
    assert!(matches!(failed, CallError::TimedOut { .. }), "{failed}");
    assert_eq!(failed.to_string(), format!("{address} did not answer within 100 ms"));
}

#[tokio::test]
async fn a_flood_of_silent_connections_does_not_keep_nodes_out() {
    let swarm = Swarm::new("swarm");
    let options = ServerOptions { connections: 2, ..ServerOptions::default() };
    let running = serve_with(swarm.manager("m"), (Ipv4Addr::LOCALHOST, 0).into(), options);
    let mut silent = Vec::new();
    for _ in 0..600 {
        let from = TcpSocket::new_v4().unwrap();
        from.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(from.connect(running.server.local_address()).await.unwrap());
    }
    // What is beyond one address's share is closed at once; the rest waits for its time to run out.
    let last = silent.last_mut().unwrap();
    assert!(matches!(in_time(last.read(&mut [0])).await, Ok(0) | Err(_)));
    let first = silent.first_mut().unwrap();
    assert!(first.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    let one = Client::new(swarm.worker("one"));
    assert_eq!(echo(&one, &running.address).await.unwrap(), "one says hello");
    let two = Client::new(swarm.worker("two"));
    assert_eq!(echo(&two, &running.address).await.unwrap(), "two says hello");
    let three = echo(&Client::new(swarm.worker("three")), &running.address).await;
    assert!(matches!(three, Err(CallError::Unreachable { .. })), "more than the limit: {three:?}");
}

#[tokio::test]
async fn names_are_resolved() {
    let swarm = Swarm::new("swarm");
    let running = serve(swarm.manager("m"));
    let port = running.server.local_address().port();
    let client = Client::new(swarm.worker("w"));
    assert_eq!(echo(&client, &format!("localhost:{port}")).await.unwrap(), "w says hello");
    for nowhere in ["no address", "", "127.0.0.1", "a.invalid:1"] {
        let failed = echo(&client, nowhere).await.unwrap_err();
        assert!(matches!(failed, CallError::Unreachable { .. }), "{nowhere}: {failed}");
    }
}
