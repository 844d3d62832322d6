//! Asks the old packet filter, which nf_tables does not list, whether it drops forwarded packets by default.
//!
//! In: nothing. Out: yes or no. Never loads or changes the old filter: where its table is not there, it drops nothing.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// Source: linux/netfilter_ipv4/ip_tables.h, `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// Length of `struct ipt_getinfo`, and where it holds the offset of the forward chain's last rule and the table's size.
const INFO_BYTES: usize = 84;
const FORWARD_UNDERFLOW: usize = 32 + 4 + 5 * 4 + 2 * 4;
const TABLE_SIZE: usize = INFO_BYTES - 4;
/// Where `struct ipt_get_entries` holds the size and where its rules begin.
const ENTRIES_SIZE: usize = 32;
const ENTRIES_BEGIN: usize = 40;
/// Where `struct ipt_entry` holds the offset of its target, and where a standard target holds its verdict.
const TARGET_OFFSET: usize = 84 + 4;
const TARGET_VERDICT: usize = 32;
/// `-NF_DROP - 1`: how verdicts are written there.
const VERDICT_DROP: i32 = -1;
/// chosen: a table larger than this belongs to nobody who would miss a warning.
const TABLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// True when the `filter` table of the old packet filter drops forwarded IPv4 packets that none of its rules accepts.
pub fn forward_drops_by_default() -> io::Result<bool> {
    // Asking for a table makes the kernel create it, so first look whether it is there.
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = vec![0; INFO_BYTES];
    name_filter_table(&mut info);
    ask(&socket, GET_INFO, &mut info)?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let forward = number(&info, FORWARD_UNDERFLOW).ok_or_else(malformed)?;
    let size = number(&info, TABLE_SIZE).filter(|size| *size <= TABLE_BYTES_MAX).ok_or_else(malformed)?;
    let mut entries = vec![0; ENTRIES_BEGIN + size];
    name_filter_table(&mut entries);
    let size = u32::try_from(size).map_err(|_| malformed())?;
    entries[ENTRIES_SIZE..ENTRIES_SIZE + 4].copy_from_slice(&size.to_ne_bytes());
    ask(&socket, GET_ENTRIES, &mut entries)?;
    read_verdict(entries.get(ENTRIES_BEGIN + forward..).unwrap_or_default())
        .map(|verdict| verdict == VERDICT_DROP)
        .ok_or_else(malformed)
}

fn read_verdict(rule: &[u8]) -> Option<i32> {
    let target =
        usize::from(u16::from_ne_bytes(rule.get(TARGET_OFFSET..TARGET_OFFSET + 2)?.try_into().ok()?));
    let verdict = rule.get(target + TARGET_VERDICT..target + TARGET_VERDICT + 4)?;
    Some(i32::from_ne_bytes(verdict.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
}

fn name_filter_table(bytes: &mut [u8]) {
    bytes[..6].copy_from_slice(b"filter");
}

fn ask(socket: &OwnedFd, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes into the live buffer.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, option, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
