//! Small calls beside a connection: one datagram there, one back, under a key that only its two ends have.
//!
//! ```text
//!  call    version 2 │ line (8) │ sequence (8, big endian) │ sealed: length of the name │ name │ body
//!  answer  version 3 │ line (8) │ sequence                 │ sealed: 0 answered, 1 refused │ body
//! ```
//!
//! Both ends take line and key from the connection's TLS session (RFC 5705), so that nothing has to be agreed on, and a
//! line ends with its connection. The seal is AES-256-GCM over all of it. In: calls, datagrams. Out: the same at the other
//! end. What is forged, damaged, repeated or out of order is dropped without a word. Never sends anything twice.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::ConnectionCommon;
use wire::Refusal;

use crate::peer::Peer;

/// What marks a call, and what marks its answer. Pulses on the same port begin with 1.
pub(crate) const CALL: u8 = 2;
const ANSWER: u8 = 3;

const HEAD: usize = 1 + 8 + 8;
const KEY: usize = 32;

/// Longest datagram. Chosen: what passes every network in one piece (IPv6: 1,280 bytes with its heads).
pub(crate) const LONGEST: usize = 1200;

/// What the key is for. Source: RFC 5705, 4: a label of one's own.
const LABEL: &[u8] = b"EXPERIMENTAL skep small calls";

/// Of the time for a call, what its datagram may take: the rest is for another way. Chosen: less than half.
const PART: (u32, u32) = (2, 5);

/// Datagrams without an answer after which none are sent for [`DEAF_FOR`]. Chosen: one is lost now and then.
const FAILURES: u32 = 2;
const DEAF_FOR: Duration = Duration::from_secs(30);

/// The key of a line, and its name.
pub(crate) struct LineKey {
    pub(crate) line: u64,
    key: LessSafeKey,
}

/// A content that was sealed, and where it belongs.
struct Opened {
    sequence: u64,
    content: Vec<u8>,
}

impl LineKey {
    /// Of a TLS session; `None` before its handshake is over.
    pub(crate) fn of<Data>(session: &ConnectionCommon<Data>) -> Option<Self> {
        let secret: [u8; 8 + KEY] = session.export_keying_material([0; 8 + KEY], LABEL, None).ok()?;
        Self::new(&secret)
    }

    fn new(secret: &[u8; 8 + KEY]) -> Option<Self> {
        let (line, key) = secret.split_first_chunk()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { line: u64::from_be_bytes(*line), key })
    }

    /// A sequence is used once in each direction, so no nonce is used twice.
    fn nonce(version: u8, sequence: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = version;
        nonce[NONCE_LEN - 8..].copy_from_slice(&sequence.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, version: u8, sequence: u64, mut content: Vec<u8>) -> Option<Vec<u8>> {
        let mut datagram = vec![version];
        datagram.extend_from_slice(&self.line.to_be_bytes());
        datagram.extend_from_slice(&sequence.to_be_bytes());
        let nonce = Self::nonce(version, sequence);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&datagram), &mut content).ok()?;
        datagram.append(&mut content);
        (datagram.len() <= LONGEST).then_some(datagram)
    }

    fn open(&self, version: u8, datagram: &[u8]) -> Option<Opened> {
        let (head, sealed) = datagram.split_at_checked(HEAD)?;
        let sequence = u64::from_be_bytes(*head.last_chunk()?);
        if head[0] != version || line(datagram)? != self.line {
            return None;
        }
        let mut content = sealed.to_vec();
        let opened = self.key.open_in_place(Self::nonce(version, sequence), Aad::from(head), &mut content);
        let length = opened.ok()?.len();
        content.truncate(length);
        Some(Opened { sequence, content })
    }
}

/// Which line a datagram belongs to, as it says.
pub(crate) fn line(datagram: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*datagram.get(1..)?.first_chunk()?))
}

/// The calling end of a line.
pub(crate) struct Line {
    key: LineKey,
    to: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<AsyncFd<UdpSocket>>,
    sequence: u64,
    /// Calls without an answer since the last one that had one.
    failures: u32,
    deaf_until: Option<Instant>,
}

impl Line {
    pub(crate) fn new(key: LineKey, to: SocketAddr) -> Self {
        Self { key, to, state: Mutex::default() }
    }

    /// Calls; `None` when there was no answer within a part of `limit`, or nothing was sent: another call is under way, it
    /// is too long, or datagrams had no answers lately. The other side may have done it in any case.
    pub(crate) async fn call(
        &self,
        name: &str,
        body: &[u8],
        limit: Duration,
    ) -> Option<Result<Bytes, Refusal>> {
        let mut state = self.state.try_lock().ok()?;
        if state.deaf_until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        state.sequence += 1;
        let sequence = state.sequence;
        let mut content = vec![u8::try_from(name.len()).ok()?];
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(body);
        let call = self.key.seal(CALL, sequence, content)?;
        let exchanged =
            tokio::time::timeout(limit * PART.0 / PART.1, self.exchange(&mut state, &call, sequence));
        let answer = exchanged.await.ok().flatten();
        if answer.is_some() {
            (state.failures, state.deaf_until) = (0, None);
        } else {
            state.failures += 1;
            if state.failures >= FAILURES {
                state.deaf_until = Some(Instant::now() + DEAF_FOR);
            }
        }
        answer
    }

    async fn exchange(
        &self,
        state: &mut State,
        call: &[u8],
        sequence: u64,
    ) -> Option<Result<Bytes, Refusal>> {
        let socket = match &state.socket {
            Some(socket) => socket,
            None => state.socket.insert(connected(self.to).ok()?),
        };
        socket.get_ref().send(call).ok()?;
        let mut buffer = [0; LONGEST + 1];
        loop {
            // An error is that nobody listens there.
            let length = received(socket, |socket| socket.recv(&mut buffer)).await.ok()?;
            let opened = self.key.open(ANSWER, &buffer[..length]);
            // What is older has an answer of another way by now.
            if let Some(answer) = opened.filter(|answer| answer.sequence == sequence) {
                return read_answer(&answer.content);
            }
        }
    }
}

fn connected(to: SocketAddr) -> io::Result<AsyncFd<UdpSocket>> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    listening(socket)
}

/// A socket to be woken by for what comes, and not each time that something has left.
#[allow(deprecated, reason = "what replaces it is unsafe; a socket that is owned here keeps its descriptor")]
pub(crate) fn listening(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    socket.set_nonblocking(true)?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Waits for what `receive` takes. Cancel safe.
pub(crate) async fn received<T>(
    socket: &AsyncFd<UdpSocket>,
    mut receive: impl FnMut(&UdpSocket) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(taken) = ready.try_io(|socket| receive(socket.get_ref())) {
            return taken;
        }
    }
}

fn read_answer(content: &[u8]) -> Option<Result<Bytes, Refusal>> {
    match content.split_first()? {
        (0, body) => Some(Ok(Bytes::copy_from_slice(body))),
        (1, refusal) => Some(Err(serde_json::from_slice(refusal).ok()?)),
        _ => None,
    }
}

/// The answering end of a line.
pub(crate) struct OpenLine {
    pub(crate) peer: Peer,
    key: LineKey,
    /// The newest sequence that came.
    last: AtomicU64,
}

/// A call that came as a datagram.
pub(crate) struct SmallCall {
    sequence: u64,
    pub(crate) name: String,
    pub(crate) body: Bytes,
}

impl OpenLine {
    pub(crate) fn new(key: LineKey, peer: Peer) -> Self {
        Self { peer, key, last: AtomicU64::new(0) }
    }

    /// A call, if it is genuine and newer than all before.
    pub(crate) fn take(&self, datagram: &[u8]) -> Option<SmallCall> {
        let Opened { sequence, content } = self.key.open(CALL, datagram)?;
        let (length, rest) = content.split_first()?;
        let (name, body) = rest.split_at_checked(usize::from(*length))?;
        let call = SmallCall {
            sequence,
            name: std::str::from_utf8(name).ok()?.to_owned(),
            body: Bytes::copy_from_slice(body),
        };
        (self.last.fetch_max(sequence, Ordering::Relaxed) < sequence).then_some(call)
    }

    /// The datagram of an answer; `None` when it is too long for one.
    pub(crate) fn answer(&self, call: &SmallCall, answer: Result<Bytes, Refusal>) -> Option<Vec<u8>> {
        let mut content = vec![u8::from(answer.is_err())];
        match answer {
            Ok(body) => content.extend_from_slice(&body),
            Err(refusal) => serde_json::to_writer(&mut content, &refusal).ok()?,
        }
        self.key.seal(ANSWER, call.sequence, content)
    }
}

#[cfg(test)]
mod tests {
    use objects::{NodeRole, Timestamp};
    use wire::Code;

    use super::*;

    fn key(line: u8) -> LineKey {
        LineKey::new(&[line; 8 + KEY]).unwrap()
    }

    fn open_line() -> OpenLine {
        let (not_before, not_after) = (Timestamp::ZERO, Timestamp::ZERO);
        let (node, cluster) = ("n".into(), "c".into());
        let peer =
            Peer { node, role: NodeRole::Manager, cluster, not_before, not_after, certificate: Bytes::new() };
        OpenLine::new(key(7), peer)
    }

    fn call(sequence: u64) -> Vec<u8> {
        key(7).seal(CALL, sequence, b"\x04beatbody".to_vec()).unwrap()
    }

    #[test]
    fn a_call_is_taken_once_and_only_as_a_whole() {
        let (line, datagram) = (open_line(), call(5));
        for position in 0..datagram.len() {
            let mut damaged = datagram.clone();
            damaged[position] ^= 1;
            assert!(line.take(&damaged).is_none(), "byte {position}");
            assert!(line.take(&datagram[..position]).is_none(), "first {position}");
        }
        assert!(line.take(&key(8).seal(CALL, 9, b"\x04beat".to_vec()).unwrap()).is_none(), "another line's");
        let taken = line.take(&datagram).unwrap();
        assert_eq!((taken.name.as_str(), &taken.body[..]), ("beat", &b"body"[..]));
        assert!(line.take(&datagram).is_none(), "repeated");
        assert!(line.take(&call(4)).is_none(), "late");
        assert!(line.take(&call(6)).is_some());
    }

    #[test]
    fn an_answer_is_of_its_call_and_no_call() {
        let line = open_line();
        let taken = line.take(&call(5)).unwrap();
        let answer = line.answer(&taken, Ok(Bytes::from_static(b"yes"))).unwrap();
        let opened = key(7).open(ANSWER, &answer).unwrap();
        assert_eq!((opened.sequence, read_answer(&opened.content)), (5, Some(Ok("yes".into()))));
        assert!(key(7).open(CALL, &answer).is_none());
        let refusal = Refusal::new(Code::Unavailable, "no");
        let refused = line.answer(&taken, Err(refusal.clone())).unwrap();
        assert_eq!(read_answer(&key(7).open(ANSWER, &refused).unwrap().content), Some(Err(refusal)));
        assert!(line.answer(&taken, Ok(Bytes::from(vec![0; LONGEST]))).is_none(), "too long");
    }
}
