//! Where the parts of a table lie. Numbers are little-endian.
//!
//! ```text
//!  0  "skepname"                32 rows       16 each: name (start u32, length u16), 0, addresses (first u32, count u32)
//!  8  format                       addresses  16 each, IPv4 as ::ffff:a.b.c.d
//! 12  rows, addresses,             reverse    24 each: address, name (start u32, length u32)
//!     reverse entries, length      text       what the names' starts count from; the network's name comes first
//!     of the network's name
//! ```
//!
//! Rows are sorted by the bytes of their names, which are in lower case, reverse entries by address. A reader ignores
//! what comes behind the parts that it knows: a shim reads what a newer daemon writes, so parts are only added, and
//! [`FORMAT`] changes only once no shim that knows the old one can be alive.

use std::net::{IpAddr, Ipv6Addr};

/// The one format there is.
pub const FORMAT: u32 = 1;

pub(crate) const MAGIC: &[u8; 8] = b"skepname";
pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const ROW_BYTES: usize = 16;
pub(crate) const ADDRESS_BYTES: usize = 16;
pub(crate) const REVERSE_BYTES: usize = 24;

/// Longest name that can be asked for. Source: RFC 1035, 2.3.4.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// As addresses are written and sorted.
pub(crate) fn address_bytes(address: IpAddr) -> [u8; ADDRESS_BYTES] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

pub(crate) fn address_of(bytes: [u8; ADDRESS_BYTES]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}
