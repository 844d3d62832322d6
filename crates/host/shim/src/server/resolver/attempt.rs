//! One upstream resolver, asked once.
//!
//! In: its address, the query under an id of our own. Out: what it answers. Each attempt has a socket, and so a port, of its
//! own: who wants to slip in an answer has to guess port and id. Never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use resolve::Transport;
use resolve::relay::{self, Judgement};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::doors::DNS_PORT;
use crate::server::poll::{Interest, Poll, Ready};

/// Messages taken from one socket in a row. Chosen: one answer is expected; more is somebody else's.
const MESSAGES_AT_ONCE: usize = 4;

/// What has come of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing yet.
    Waits,
    /// An answer, under our id.
    Answered(Vec<u8>),
    /// An answer that doesn't fit into a datagram as we take them.
    TooLong,
    /// It doesn't help; what it said, if anything.
    Failed(Option<Vec<u8>>),
}

#[derive(Debug)]
pub(super) struct Attempt {
    id: u16,
    channel: Channel,
}

#[derive(Debug)]
enum Channel {
    Datagrams(UdpSocket),
    Stream { socket: TcpStream, outbox: Vec<u8>, sent: usize, inbox: Vec<u8> },
}

impl Attempt {
    /// Sends the query, or begins to.
    pub(super) fn begin(address: IpAddr, id: u16, query: &[u8], transport: Transport) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = if transport == Transport::Udp { SocketType::DGRAM } else { SocketType::STREAM };
        let socket = socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        match connect(&socket, &SocketAddr::new(address, DNS_PORT)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut message = query.to_vec();
        relay::set_id(&mut message, id);
        let channel = match transport {
            Transport::Udp => {
                let socket = UdpSocket::from(socket);
                socket.send(&message)?;
                Channel::Datagrams(socket)
            }
            Transport::Tcp => {
                let length = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
                let outbox = [&length.to_be_bytes()[..], &message].concat();
                Channel::Stream { socket: socket.into(), outbox, sent: 0, inbox: Vec::new() }
            }
        };
        Ok(Self { id, channel })
    }

    pub(super) fn listen(&self, poll: &Poll, token: u64) -> io::Result<()> {
        match &self.channel {
            Channel::Datagrams(socket) => poll.add(socket, token, Interest::Read),
            Channel::Stream { socket, .. } => poll.add(socket, token, Interest::Write),
        }
    }

    /// Takes what has come.
    pub(super) fn handle(&mut self, ready: Ready, query: &[u8], buffer: &mut [u8], poll: &Poll) -> Progress {
        match &mut self.channel {
            Channel::Datagrams(socket) => receive_datagrams(socket, query, self.id, buffer),
            Channel::Stream { socket, outbox, sent, inbox } => {
                if *sent < outbox.len() {
                    return send(socket, outbox, sent, poll, ready.token);
                }
                receive(socket, inbox, query, self.id, buffer)
            }
        }
    }
}

fn receive_datagrams(socket: &UdpSocket, query: &[u8], id: u16, buffer: &mut [u8]) -> Progress {
    for _ in 0..MESSAGES_AT_ONCE {
        let length = match socket.recv(buffer) {
            Ok(length) => length,
            Err(error) if is_temporary(&error) => return Progress::Waits,
            // Nobody listens there, or there is no way to it.
            Err(_) => return Progress::Failed(None),
        };
        let message = &buffer[..length];
        match relay::judge(message, query, id) {
            Judgement::Foreign => {}
            Judgement::Good if length == buffer.len() => return Progress::TooLong,
            Judgement::Good => return Progress::Answered(message.to_vec()),
            Judgement::Failed => return Progress::Failed(Some(message.to_vec())),
        }
    }
    Progress::Waits
}

fn send(socket: &mut TcpStream, outbox: &[u8], sent: &mut usize, poll: &Poll, token: u64) -> Progress {
    match socket.write(&outbox[*sent..]) {
        Ok(count) => *sent += count,
        Err(error) if is_temporary(&error) => {}
        Err(_) => return Progress::Failed(None),
    }
    if *sent == outbox.len() && poll.change(&*socket, token, Interest::Read).is_err() {
        return Progress::Failed(None);
    }
    Progress::Waits
}

fn receive(
    socket: &mut TcpStream,
    inbox: &mut Vec<u8>,
    query: &[u8],
    id: u16,
    buffer: &mut [u8],
) -> Progress {
    match socket.read(buffer) {
        Ok(0) => return Progress::Failed(None),
        Ok(count) => inbox.extend_from_slice(&buffer[..count]),
        Err(error) if is_temporary(&error) => return Progress::Waits,
        Err(_) => return Progress::Failed(None),
    }
    let Some(length) = inbox.first_chunk::<2>() else { return Progress::Waits };
    let Some(message) = inbox.get(2..2 + usize::from(u16::from_be_bytes(*length))) else {
        return Progress::Waits;
    };
    match relay::judge(message, query, id) {
        Judgement::Good => Progress::Answered(message.to_vec()),
        Judgement::Failed => Progress::Failed(Some(message.to_vec())),
        Judgement::Foreign => Progress::Failed(None),
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
