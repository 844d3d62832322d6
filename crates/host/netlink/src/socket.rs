//! One netlink socket: sends requests and collects their answers, acknowledgements and extended errors.
//!
//! In: encoded messages. Out: the payloads of the answers. Belongs for ever to the network namespace it was opened in.
//! Never interprets a payload.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with,
};

use crate::NetlinkError;
use crate::wire::{self, Message};

pub(crate) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(crate) const ACK: u16 = libc::NLM_F_ACK as u16;
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(crate) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
pub(crate) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
pub(crate) const APPEND: u16 = libc::NLM_F_APPEND as u16;

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const EXTACK_MESSAGE: u16 = 1;

/// chosen: the kernel never puts more than 32 KiB into one datagram of a dump, and acknowledgements are capped.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A bound netlink socket with a sequence counter.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket; `groups` is the bit mask of multicast groups to join (group n is bit n-1).
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self, NetlinkError> {
        let open = |errno: Errno| NetlinkError::Open(errno.into());
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(open)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(open)?;
        let address = getsockname(&fd).map_err(open)?;
        let address = SocketAddrNetlink::try_from(address).map_err(open)?;
        let socket = Self { fd, port: address.pid(), sequence: 0, buffer: Vec::new() };
        // Both only improve error texts; kernels before 4.12 lack them.
        let _ = socket.set_option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        let _ = socket.set_option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
    }

    /// Sets an integer socket option.
    pub(crate) fn set_option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four fits");
        // SAFETY: the descriptor is open for as long as `self` lives, and the pointer and length describe a live i32.
        let result =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The kernel's name of this socket; it marks the notifications that this socket caused.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        // chosen: starting over far below the end keeps the numbers of one batch in order.
        self.sequence = if self.sequence > u32::MAX / 2 { 1 } else { self.sequence + 1 };
        self.sequence
    }

    /// Takes further sequence numbers, for the messages of a batch.
    pub(crate) fn skip_sequences(&mut self, count: u32) {
        self.sequence = self.sequence.wrapping_add(count);
    }

    pub(crate) fn send(&self, operation: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::Send { operation, source: errno.into() }),
            }
        }
    }

    /// Receives one datagram into the socket's own buffer.
    pub(crate) fn receive(&mut self, flags: RecvFlags) -> Result<&[u8], Errno> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            match recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((length, _)) => return Ok(&self.buffer[..length]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Gives the memory of the receive buffer back until the next use, for sockets that are kept and rarely used.
    pub(crate) fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    /// Sends one request whose message asks for an acknowledgement, and waits for it.
    pub(crate) fn acknowledged(
        &mut self,
        operation: &'static str,
        sequence: u32,
        bytes: &[u8],
    ) -> Result<(), NetlinkError> {
        self.exchange(operation, sequence, bytes, |_| ())
    }

    /// Sends one request and gives every answer to `each` until the kernel says that it is done or refuses.
    pub(crate) fn exchange(
        &mut self,
        operation: &'static str,
        sequence: u32,
        bytes: &[u8],
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        self.send(operation, bytes)?;
        loop {
            let datagram = self
                .receive(RecvFlags::empty())
                .map_err(|errno| NetlinkError::Receive { operation, source: errno.into() })?;
            for message in wire::messages(datagram).filter(|message| message.sequence == sequence) {
                match message.kind {
                    ERROR | DONE => return outcome(operation, &message),
                    _ => each(message),
                }
            }
        }
    }
}

/// Reads an acknowledgement: `Ok` for errno 0.
pub(crate) fn outcome(operation: &'static str, message: &Message<'_>) -> Result<(), NetlinkError> {
    let code = wire::read_u32(message.payload, 0).map(u32::cast_signed).unwrap_or(0);
    if code == 0 {
        return Ok(());
    }
    Err(NetlinkError::Refused {
        operation,
        explanation: explanation(message),
        source: io::Error::from_raw_os_error(-code),
    })
}

/// The kernel's extended acknowledgement text, or an empty string.
fn explanation(message: &Message<'_>) -> String {
    if message.kind != ERROR || message.flags & ACK_TLVS == 0 {
        return String::new();
    }
    let echoed = if message.flags & CAPPED != 0 {
        wire::HEADER
    } else {
        wire::read_u32(message.payload, 4).map_or(wire::HEADER, |length| length as usize).next_multiple_of(4)
    };
    wire::attributes_after(message.payload, 4 + echoed)
        .find(|(kind, _)| *kind == EXTACK_MESSAGE)
        .map(|(_, text)| wire::read_text(text))
        .unwrap_or_default()
}

/// True for messages that end or refuse a request.
pub(crate) fn is_acknowledgement(message: &Message<'_>) -> bool {
    matches!(message.kind, ERROR | DONE)
}
