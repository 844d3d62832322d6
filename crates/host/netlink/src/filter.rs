//! Programs that decide which packets reach a socket at all.
//!
//! In: a socket. Out: a socket that the kernel gives less to. Never affects other sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::sock_filter;

/// Classic BPF instructions. Source: linux/bpf_common.h.
const LOAD_WORD_AT: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Lets no packet through.
pub(crate) fn drop_everything(socket: BorrowedFd<'_>) -> io::Result<()> {
    attach(socket, &mut [instruction(RETURN, 0, 0, 0)])
}

/// Drops notifications that the netlink socket with this port caused.
pub(crate) fn drop_caused_by(socket: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    /// Where the header of a message holds the port.
    const PORT_OFFSET: u32 = 12;
    // The load takes the bytes as a big-endian number, the kernel wrote them in its own order.
    let wanted = u32::from_be_bytes(port.to_ne_bytes());
    attach(
        socket,
        &mut [
            instruction(LOAD_WORD_AT, 0, 0, PORT_OFFSET),
            instruction(JUMP_IF_EQUAL, 0, 1, wanted),
            instruction(RETURN, 0, 0, 0),
            instruction(RETURN, 0, 0, u32::MAX),
        ],
    )
}

fn instruction(code: u16, if_true: u8, if_false: u8, operand: u32) -> sock_filter {
    sock_filter { code, jt: if_true, jf: if_false, k: operand }
}

fn attach(socket: BorrowedFd<'_>, program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).expect("programs have a handful of instructions");
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("sixteen fits");
    // SAFETY: the descriptor is open; `filter` and the instructions it points to live until the call returns, which
    // copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
