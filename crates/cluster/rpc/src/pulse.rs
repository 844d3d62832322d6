//! Proof of life: a small datagram that only the node it names can have made.
//!
//! In: a node's key, its session. Out: datagrams; at the other end, who was heard. A datagram that is forged, damaged,
//! foreign or repeated is dropped without a word. Never decides whether a node is down. Small calls (`datagram.rs`) come to
//! the same port.
//!
//! ```text
//! version 1 │ length of node │ length of session │ node │ session │ sequence (8, big endian) │ HMAC-SHA256 (32)
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use aws_lc_rs::hmac;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use objects::NodeId;
use tokio::io::unix::AsyncFd;
use wire::Hidden;
use wire::session::SessionId;

use crate::server::Visitors;
use crate::{clock, datagram};

/// The only form there is so far.
const VERSION: u8 = 1;

/// Longest name of a node or a session. Chosen: ids have 25 characters; room for other forms.
const NAME: usize = 64;

const HEAD: usize = 3;
const SEAL: usize = 32;

/// Sessions of one node whose sequence is remembered. Chosen: the current one and those that reordered datagrams may
/// still be from.
const SESSIONS: usize = 4;

/// Nodes remembered. Chosen: three times a large swarm, removed nodes included.
const NODES: usize = 16_384;

/// Small calls that are answered at a time. Chosen: more than managers there are.
const CALLS: usize = 256;

/// What separates these keys from any other use of the same secret.
const PURPOSE: &[u8] = b"skep pulse\0";

/// A node's key for its pulses: 32 bytes.
#[derive(Clone)]
pub struct PulseKey([u8; SEAL]);

impl PulseKey {
    /// The key of a node: HMAC-SHA256 of its id under the swarm's pulse secret.
    #[must_use]
    pub fn derive(secret: &[u8], node: &NodeId) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(PURPOSE);
        context.update(node.as_str().as_bytes());
        Self(context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// As a session's `Hello` carries it; `None` when it is not 32 bytes in base 64.
    #[must_use]
    pub fn read(text: &Hidden) -> Option<Self> {
        Some(Self(pki::decode_base64(text.reveal())?.try_into().ok()?))
    }

    /// For a session's `Hello`: base 64.
    #[must_use]
    pub fn to_hidden(&self) -> Hidden {
        pki::encode_base64(&self.0).into()
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for PulseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PulseKey(hidden)")
    }
}

/// Sends pulses of one node.
pub struct PulseSender {
    node: NodeId,
    /// Begins with the time, so that a daemon that starts again goes on above what it said before.
    sequence: u64,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl PulseSender {
    /// Opens its sockets: one for each family that the machine has.
    pub fn open(node: NodeId) -> io::Result<Self> {
        let v4 = socket((Ipv4Addr::UNSPECIFIED, 0).into());
        let v6 = socket((Ipv6Addr::UNSPECIFIED, 0).into());
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let sequence = u64::try_from(clock::now().0 / 1000).unwrap_or(0);
        Ok(Self { node, sequence, v4, v6 })
    }

    /// Sends one pulse to each address; never waits. What cannot be sent is lost, like any datagram; the addresses that
    /// failed are in the answer, for the log.
    pub fn send(
        &mut self,
        key: &PulseKey,
        session: &SessionId,
        to: &[SocketAddr],
    ) -> Vec<(SocketAddr, io::Error)> {
        self.sequence += 1;
        let datagram = seal(key, self.node.as_str(), &session.0, self.sequence);
        let send = |to: &SocketAddr| {
            let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            let sent = match (&datagram, socket) {
                (None, _) => Err(io::ErrorKind::InvalidInput.into()),
                (_, None) => Err(io::ErrorKind::Unsupported.into()),
                (Some(datagram), Some(socket)) => socket.send_to(datagram, to).map(|_| ()),
            };
            Some((*to, sent.err()?))
        };
        to.iter().filter_map(send).collect()
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A pulse that was heard: genuine, and not heard before.
///
/// A manager that was restarted knows no sequence yet: whoever acts on a pulse looks at its session, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who is alive.
    pub node: NodeId,
    /// In which session.
    pub session: SessionId,
    /// Where it came from.
    pub from: SocketAddr,
}

/// Hears pulses, and answers small calls that arrive beside them.
pub struct PulseServer {
    socket: AsyncFd<UdpSocket>,
    memory: Memory,
    /// Who is connected to the server that answers small calls.
    callers: Option<Visitors>,
    answering: FuturesUnordered<BoxFuture<'static, (Option<Vec<u8>>, SocketAddr)>>,
}

impl PulseServer {
    /// Listens for datagrams; the port is usually that of the server for calls. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = datagram::listening(socket(address)?)?;
        Ok(Self { socket, memory: Memory::default(), callers: None, answering: FuturesUnordered::new() })
    }

    /// Has the server of these visitors answer small calls, while pulses are waited for.
    #[must_use]
    pub fn answering(mut self, callers: Visitors) -> Self {
        self.callers = Some(callers);
        self
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Waits for the next genuine pulse. `key` gives a node's key, `None` for one that is not of the swarm; it is called
    /// for every datagram that has the right form, so it must be quick. Cancel safe.
    pub async fn next(&mut self, key: impl Fn(&NodeId) -> Option<PulseKey>) -> io::Result<Heard> {
        // One byte more shows a datagram that is too long.
        let mut buffer = [0; datagram::LONGEST + 1];
        loop {
            let (length, from) = tokio::select! {
                received = datagram::received(&self.socket, |socket| socket.recv_from(&mut buffer)) => received?,
                Some((answer, to)) = self.answering.next() => {
                    // What cannot be sent now is lost, like any datagram.
                    drop(answer.map(|answer| self.socket.get_ref().send_to(&answer, to)));
                    continue;
                }
            };
            if buffer[..length].first() == Some(&datagram::CALL) {
                self.take_call(&buffer[..length], from);
                continue;
            }
            let Some(pulse) = open(&buffer[..length], &key) else { continue };
            if self.memory.is_news(&pulse) {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                return Ok(Heard { node: pulse.node, session: pulse.session, from });
            }
        }
    }
}

impl PulseServer {
    fn take_call(&mut self, datagram: &[u8], from: SocketAddr) {
        if self.answering.len() >= CALLS {
            return;
        }
        let answer = self.callers.as_ref().and_then(|callers| callers.answer(datagram, from));
        self.answering.extend(
            answer.map(|answer| -> BoxFuture<'static, _> { Box::pin(async move { (answer.await, from) }) }),
        );
    }
}

/// What a datagram says.
struct Pulse {
    node: NodeId,
    session: SessionId,
    sequence: u64,
}

/// Makes a datagram; `None` when a name is too long for one.
fn seal(key: &PulseKey, node: &str, session: &str, sequence: u64) -> Option<Vec<u8>> {
    let length = |name: &str| u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= NAME);
    let mut datagram = vec![VERSION, length(node)?, length(session)?];
    datagram.extend_from_slice(node.as_bytes());
    datagram.extend_from_slice(session.as_bytes());
    datagram.extend_from_slice(&sequence.to_be_bytes());
    let seal = hmac::sign(&key.hmac(), &datagram);
    datagram.extend_from_slice(seal.as_ref());
    Some(datagram)
}

/// Reads a datagram; `None` when it is not genuine.
fn open(datagram: &[u8], key: impl Fn(&NodeId) -> Option<PulseKey>) -> Option<Pulse> {
    let (said, seal) = datagram.split_at_checked(datagram.len().checked_sub(SEAL)?)?;
    let (head, rest) = said.split_at_checked(HEAD)?;
    let (node, rest) = rest.split_at_checked(usize::from(head[1]))?;
    let (session, sequence) = rest.split_at_checked(usize::from(head[2]))?;
    let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
    if head[0] != VERSION || node.len() > NAME || session.len() > NAME {
        return None;
    }
    let node = NodeId::from(std::str::from_utf8(node).ok()?);
    hmac::verify(&key(&node)?.hmac(), said, seal).ok()?;
    let session = SessionId(std::str::from_utf8(session).ok()?.to_owned());
    Some(Pulse { node, session, sequence })
}

/// The last sequence of each node's latest sessions.
#[derive(Default)]
struct Memory {
    nodes: BTreeMap<NodeId, Vec<(SessionId, u64)>>,
}

impl Memory {
    /// Whether a genuine pulse was not heard before; it is then remembered.
    fn is_news(&mut self, pulse: &Pulse) -> bool {
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&pulse.node) {
            self.nodes.pop_first();
        }
        let sessions = self.nodes.entry(pulse.node.clone()).or_default();
        if let Some((_, last)) = sessions.iter_mut().find(|(session, _)| *session == pulse.session) {
            let is_later = pulse.sequence > *last;
            *last = pulse.sequence.max(*last);
            return is_later;
        }
        if sessions.len() == SESSIONS {
            sessions.remove(0);
        }
        sessions.push((pulse.session.clone(), pulse.sequence));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"the swarm's";

    fn key_of(node: &str) -> PulseKey {
        PulseKey::derive(SECRET, &NodeId::from(node))
    }

    fn known(node: &NodeId) -> Option<PulseKey> {
        (node.as_str() != "stranger").then(|| PulseKey::derive(SECRET, node))
    }

    #[test]
    fn a_datagram_is_genuine_only_as_a_whole() {
        let datagram = seal(&key_of("node"), "node", "session", 7).unwrap();
        let read = open(&datagram, known).unwrap();
        assert_eq!((read.node.as_str(), read.session.0.as_str(), read.sequence), ("node", "session", 7));
        for position in 0..datagram.len() {
            let mut damaged = datagram.clone();
            damaged[position] ^= 1;
            assert!(open(&damaged, known).is_none(), "byte {position}");
            assert!(open(&datagram[..position], known).is_none(), "first {position}");
        }
        assert!(open(&[&datagram[..], &[0]].concat(), known).is_none());
    }

    #[test]
    fn a_node_cannot_speak_for_another() {
        let forged = seal(&key_of("mallory"), "node", "session", 1).unwrap();
        assert!(open(&forged, known).is_none());
        let stranger = seal(&key_of("stranger"), "stranger", "session", 1).unwrap();
        assert!(open(&stranger, known).is_none());
    }

    #[test]
    fn what_was_heard_before_is_no_news() {
        let mut memory = Memory::default();
        let mut hear = |session: &str, sequence| {
            memory.is_news(&Pulse { node: "n".into(), session: SessionId(session.into()), sequence })
        };
        assert!(hear("a", 5));
        assert!(!hear("a", 5), "a copy");
        assert!(!hear("a", 4), "an older one");
        assert!(hear("b", 1), "a new session counts from anywhere");
        assert!(!hear("a", 5), "and the one before stays known");
        assert!(hear("a", 6));
    }

    #[test]
    fn a_key_travels_hidden() {
        let key = key_of("node");
        assert_eq!(PulseKey::read(&key.to_hidden()).unwrap().0, key.0);
        assert!(PulseKey::read(&Hidden::from("AAAA")).is_none());
        assert!(!format!("{key:?}").contains(key.to_hidden().reveal()));
    }

    #[tokio::test]
    async fn pulses_are_heard_once_over_a_real_socket() {
        let mut server = PulseServer::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let to = server.local_address().unwrap();
        let mut sender = PulseSender::open(NodeId::from("node")).unwrap();
        let session = SessionId("s".to_owned());
        // Whatever comes between is dropped: a replay, garbage, a forgery.
        let replayed = seal(&key_of("node"), "node", "s", 1).unwrap();
        let other = socket((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        assert!(sender.send(&key_of("node"), &session, &[to]).is_empty());
        other.send_to(&replayed, to).unwrap();
        other.send_to(b"garbage", to).unwrap();
        other.send_to(&[1; 4000], to).unwrap();
        assert!(sender.send(&key_of("mallory"), &session, &[to]).is_empty());
        let session_2 = SessionId("t".to_owned());
        assert!(sender.send(&key_of("node"), &session_2, &[to]).is_empty());
        let first = server.next(known).await.unwrap();
        let second = server.next(known).await.unwrap();
        assert_eq!((first.session, second.session), (session, session_2));
        assert_eq!(first.node, NodeId::from("node"));
    }
}
