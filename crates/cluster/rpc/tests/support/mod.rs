//! A small swarm for the tests: an authority, nodes, and methods to call.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use objects::{Nanos, NodeRole, Timestamp};
use pki::{Authority, Identity};
use rpc::{Caller, Client, Credentials, Router, Server, ServerOptions, Tls};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use wire::{Callers, Code, Method, RawMethod, Refusal, Streaming};

/// Long enough for anything that works, short enough for a test that does not.
pub const LIMIT: Duration = Duration::from_secs(10);

pub const DAY: i64 = 86_400;

/// What should come at once; a test that waits in vain fails.
pub async fn in_time<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, awaited).await.expect("it comes in time")
}

/// The time on this machine.
pub fn now() -> Timestamp {
    Timestamp(Nanos::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap()).0)
}

/// A swarm's authority.
pub struct Swarm {
    pub authority: Authority,
    pub name: &'static str,
}

impl Swarm {
    pub fn new(name: &'static str) -> Self {
        let authority = Authority::create(Timestamp(now().0 - 400 * DAY * 1_000_000_000)).unwrap();
        Self { authority, name }
    }

    /// Credentials valid from `from` seconds from now (an hour earlier in fact) for 30 days.
    pub fn credentials(&self, node: &str, role: NodeRole, from: i64) -> Credentials {
        let identity = Identity { node: node.into(), role, cluster: self.name.into() };
        let start = Timestamp(now().0 + from * 1_000_000_000);
        let issued = self.authority.issue(&identity, start, Nanos::from_secs(30 * DAY)).unwrap();
        Credentials {
            certificate: issued.certificate,
            key: issued.key.pem().to_owned(),
            roots: self.authority.certificate.clone(),
        }
    }

    pub fn manager(&self, node: &str) -> Tls {
        Tls::new(&self.credentials(node, NodeRole::Manager, 0)).unwrap()
    }

    pub fn worker(&self, node: &str) -> Tls {
        Tls::new(&self.credentials(node, NodeRole::Worker, 0)).unwrap()
    }
}

/// A text that goes both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub text: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

/// Declares calls that take and give a text.
macro_rules! calls {
    ($($name:ident for $callers:ident),+) => { $(
        pub struct $name;
        impl Method for $name {
            const NAME: &'static str = stringify!($name);
            const CALLERS: Callers = Callers::$callers;
            type Request = Text;
            type Response = Text;
        }
    )+ };
}

calls!(Hail for Anyone, Prove for ExpiredToo, Echo for Node, Command for Manager, Wait for Node);

/// Numbers from 0 on, then nothing more until somebody ends it.
pub struct Count;

impl Streaming for Count {
    const NAME: &'static str = "Count";
    const CALLERS: Callers = Callers::Node;
    type Request = Text;
    type Item = u64;
}

pub const RAW: RawMethod = RawMethod { name: "raw", callers: Callers::Manager };
/// Answers which way the call came.
pub const WAY: RawMethod = RawMethod { name: "way", callers: Callers::Manager };
pub const UPLOAD: RawMethod = RawMethod { name: "upload", callers: Callers::Manager };

/// What the handlers tell the test.
#[derive(Clone)]
pub struct Seen {
    /// A line for each thing that happened.
    pub lines: mpsc::Sender<String>,
    /// `Wait` answers when there is a permit.
    pub go: Arc<Semaphore>,
}

/// Says so when it is dropped.
struct Dropped(mpsc::Sender<String>, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.try_send(self.1.to_owned());
    }
}

/// The methods of every test.
pub fn router(seen: &Seen) -> Router {
    let echo = |caller: Caller, request: Text| async move {
        let mark = if caller.is_expired { "expired " } else { "" };
        Ok(Text { text: format!("{mark}{} says {}", caller.node(), request.text) })
    };
    let (waiting, counting, uploading) = (seen.clone(), seen.clone(), seen.clone());
    Router::new()
        .method::<Hail, _, _>(echo)
        .method::<Prove, _, _>(echo)
        .method::<Echo, _, _>(echo)
        .method::<Command, _, _>(|_, request: Text| async move {
            let length: usize = request.text.parse().unwrap();
            Ok(Text { text: "x".repeat(length) })
        })
        .method::<Wait, _, _>(move |_, request| {
            let seen = waiting.clone();
            async move {
                let dropped = Dropped(seen.lines.clone(), "call dropped");
                seen.lines.send("waiting".to_owned()).await.unwrap();
                seen.go.acquire().await.unwrap().forget();
                std::mem::forget(dropped);
                Ok(request)
            }
        })
        .streaming::<Count, _, _, _>(move |_, request: Text| {
            let dropped = Dropped(counting.lines.clone(), "stream dropped");
            async move {
                let count = match request.text.as_str() {
                    "refuse" => return Err(Refusal::new(Code::NotFound, "no numbers").ask("elsewhere:1")),
                    text => text.parse().unwrap(),
                };
                let numbers = stream::iter((0..count).map(Ok));
                let end = match count {
                    // Ends by itself, ends by a refusal, or goes on.
                    1 => stream::empty().boxed(),
                    2 => stream::iter([Err(Refusal::new(Code::Aborted, "enough")), Ok(77)]).boxed(),
                    _ => stream::pending().boxed(),
                };
                Ok(numbers.chain(end).map(move |item| {
                    let _kept = &dropped;
                    item
                }))
            }
        })
        .raw(RAW, |_, bytes| async move { Ok(bytes.iter().rev().copied().collect::<Vec<_>>().into()) })
        .raw(WAY, |caller, _| async move {
            // Only a request on a connection tells the time.
            Ok(if caller.offset.is_some() { "connection".into() } else { "datagram".into() })
        })
        .upload(UPLOAD, move |_, header, mut body| {
            let seen = uploading.clone();
            async move {
                let (mut length, mut sum) = (0_usize, 0_u64);
                let dropped = Dropped(seen.lines.clone(), "upload dropped");
                while let Some(piece) = body.next().await {
                    let piece = piece.map_err(|_| Refusal::new(Code::Aborted, "broken"))?;
                    if header == "tell" && length == 0 {
                        seen.lines.send("uploading".to_owned()).await.unwrap();
                    }
                    length += piece.len();
                    sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                }
                std::mem::forget(dropped);
                Ok(format!("{} {length} {sum}", String::from_utf8_lossy(&header)).into())
            }
        })
}

/// A server with the methods of every test.
pub struct Running {
    pub server: Server,
    pub address: String,
    pub lines: mpsc::Receiver<String>,
    pub go: Arc<Semaphore>,
}

pub fn serve(tls: Tls) -> Running {
    serve_with(tls, (Ipv4Addr::LOCALHOST, 0).into(), ServerOptions::default())
}

pub fn serve_with(tls: Tls, address: SocketAddr, options: ServerOptions) -> Running {
    let (sender, lines) = mpsc::channel(64);
    let go = Arc::new(Semaphore::new(0));
    let seen = Seen { lines: sender, go: Arc::clone(&go) };
    let server = Server::bind(address, tls, router(&seen), options).unwrap();
    let address = server.local_address().to_string();
    Running { server, address, lines, go }
}

impl Running {
    pub async fn line(&mut self) -> String {
        in_time(self.lines.recv()).await.unwrap()
    }
}

/// `Echo`, which any node may call.
pub async fn echo(client: &Client, address: &str) -> Result<String, rpc::CallError> {
    client.call::<Echo>(address, &"hello".into(), LIMIT).await.map(|answer| answer.text)
}
