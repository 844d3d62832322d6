//! One connection of a daemon to this shim.
//!
//! In: bytes from its socket. Out: whole requests; frames on their way to it. Holds at most one request and one frame of
//! output. Never blocks, and never fails: a connection that breaks is one that has ended.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;

use crate::protocol::{self, HEADER_BYTES, Header, Kind, MAX_REQUEST_BYTES};

use super::poll::{Interest, Poll};

#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    token: u64,
    /// What the client asked for in [`Kind::Attach`].
    pub(crate) wants: u8,
    /// Bytes of the current request, header included.
    inbox: Vec<u8>,
    /// Bytes that the socket did not take yet.
    outbox: Vec<u8>,
    /// How much of the payload of the current [`Kind::Input`] is done.
    pub(crate) input_done: usize,
    /// The container doesn't read its input at the moment; nothing more is read from this client until it does.
    pub(crate) waits_for_input: bool,
    /// Nothing more can be sent to it.
    is_deaf: bool,
    /// Nothing more comes from it.
    has_ended: bool,
    /// What the socket is waited for; `None` when it isn't.
    interest: Option<Interest>,
}

/// The request at the front of the inbox.
#[derive(Debug)]
pub(crate) struct Request {
    /// `None` for one that isn't known here.
    pub(crate) kind: Option<Kind>,
    pub(crate) flags: u8,
}

impl Client {
    /// Takes over a connection and begins to listen to it.
    pub(crate) fn new(socket: UnixStream, token: u64, poll: &Poll) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        poll.add(&socket, token, Interest::Read)?;
        Ok(Self {
            socket,
            token,
            wants: 0,
            inbox: Vec::new(),
            outbox: Vec::new(),
            input_done: 0,
            waits_for_input: false,
            is_deaf: false,
            has_ended: false,
            interest: Some(Interest::Read),
        })
    }

    /// Whether it can be forgotten: nothing comes any more, and nothing it sent is left.
    pub(crate) fn is_over(&self) -> bool {
        self.has_ended && !self.waits_for_input
    }

    /// Whether output must wait for it.
    pub(crate) fn is_behind(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub(crate) fn wants(&self, flag: u8) -> bool {
        self.wants & flag != 0 && !self.is_deaf
    }

    /// Sends a frame; what the socket doesn't take now is kept.
    pub(crate) fn send(&mut self, kind: Kind, flags: u8, payload: &[u8]) {
        let header = Header::new(kind, flags, payload.len()).encode();
        let mut sent = 0;
        if self.outbox.is_empty() && !self.is_deaf {
            sent = self.try_send(&header, payload);
        }
        if self.is_deaf {
            return;
        }
        self.outbox.extend_from_slice(&header[sent.min(HEADER_BYTES)..]);
        self.outbox.extend_from_slice(&payload[sent.saturating_sub(HEADER_BYTES)..]);
    }

    pub(crate) fn send_json(&mut self, kind: Kind, payload: &impl serde::Serialize) {
        let bytes = protocol::json_frame(kind, payload);
        self.send(kind, 0, &bytes[HEADER_BYTES..]);
    }

    fn try_send(&mut self, header: &[u8], payload: &[u8]) -> usize {
        match self.socket.write_vectored(&[IoSlice::new(header), IoSlice::new(payload)]) {
            Ok(count) => count,
            Err(error) => {
                self.is_deaf = !is_temporary(&error);
                0
            }
        }
    }

    /// Sends what was kept.
    pub(crate) fn flush(&mut self) {
        while !self.outbox.is_empty() && !self.is_deaf {
            match self.socket.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_deaf = true,
            }
        }
        // The buffer is large only while a client is behind.
        self.outbox = Vec::new();
    }

    /// Gives up on a client that doesn't take its output; it may still send.
    pub(crate) fn silence(&mut self) {
        self.is_deaf = true;
        self.outbox = Vec::new();
    }

    /// Reads what has come, up to one request of full length.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) {
        if self.has_ended || self.waits_for_input {
            return;
        }
        let room = (HEADER_BYTES + MAX_REQUEST_BYTES).saturating_sub(self.inbox.len()).min(buffer.len());
        match self.socket.read(&mut buffer[..room]) {
            Ok(0) if room > 0 => self.has_ended = true,
            Ok(count) => self.inbox.extend_from_slice(&buffer[..count]),
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.has_ended = true,
        }
    }

    /// The request at the front, once it is there completely.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let header = Header::decode(*self.inbox.first_chunk()?);
        if header.len > MAX_REQUEST_BYTES {
            // It can't be understood any more where the next request begins.
            self.has_ended = true;
            self.inbox = Vec::new();
            return None;
        }
        let is_complete = self.inbox.len() >= HEADER_BYTES + header.len;
        is_complete.then(|| Request { kind: Kind::from_number(header.kind), flags: header.flags })
    }

    /// The payload of the request at the front.
    pub(crate) fn payload(&self) -> &[u8] {
        let header = self.inbox.first_chunk().map(|bytes| Header::decode(*bytes));
        header.and_then(|header| self.inbox.get(HEADER_BYTES..HEADER_BYTES + header.len)).unwrap_or_default()
    }

    /// Forgets the request at the front.
    pub(crate) fn complete(&mut self) {
        let len = HEADER_BYTES + self.payload().len();
        self.inbox.drain(..len.min(self.inbox.len()));
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        self.input_done = 0;
        self.waits_for_input = false;
    }

    /// Waits for exactly what this client's state calls for.
    pub(crate) fn update_interest(&mut self, poll: &Poll) {
        let reads = !self.has_ended && !self.waits_for_input;
        let interest = match (reads, self.is_behind()) {
            (true, true) => Some(Interest::Both),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        };
        if interest == self.interest {
            return;
        }
        let changed = match (self.interest, interest) {
            (None, Some(interest)) => poll.add(&self.socket, self.token, interest),
            (Some(_), Some(interest)) => poll.change(&self.socket, self.token, interest),
            (_, None) => {
                poll.remove(&self.socket);
                Ok(())
            }
        };
        self.interest = interest;
        if changed.is_err() {
            // Without being waited for it would hang forever; this way its daemon connects anew.
            self.has_ended = true;
            self.silence();
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
