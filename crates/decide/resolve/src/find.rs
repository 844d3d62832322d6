//! Finds names and addresses in the tables of a container's networks.
//!
//! In: what is asked for. Out: addresses, or a name. The first network that has an answer gives it; the order of the tables
//! is the order of the container's networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use names::View;

use crate::query::{LABEL_BYTES_MAX, TEXT_BYTES_MAX};

/// The addresses of a name that are wanted; empty when the name is known without any, `None` when it isn't known.
///
/// `a.b.c` is looked for as a whole in every network, then as `a.b` in network `c`, then as `a` in network `b.c`: both kinds
/// of names may have dots. Source: moby, `daemon/libnetwork/sandbox.go`, `ResolveName`.
pub(crate) fn addresses(
    tables: &[View<'_>],
    name: &[u8],
    is_wanted: impl Fn(&IpAddr) -> bool,
) -> Option<Vec<IpAddr>> {
    let dots = name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let whole = tables.iter().filter_map(|table| table.find(name));
    let within = dots.flat_map(|dot| {
        let (name, network) = (&name[..dot], &name[dot + 1..]);
        let of_network = tables.iter().filter(move |table| table.network().eq_ignore_ascii_case(network));
        of_network.filter_map(move |table| table.find(name))
    });
    let mut is_known = false;
    for found in whole.chain(within) {
        is_known = true;
        let wanted: Vec<IpAddr> = found.iter().filter(&is_wanted).collect();
        if !wanted.is_empty() {
            return Some(wanted);
        }
    }
    is_known.then(Vec::new)
}

/// `name.network` of an address, as names are written in messages. Source: moby, `Sandbox.ResolveIP`.
pub(crate) fn name_of(tables: &[View<'_>], address: IpAddr) -> Option<Vec<u8>> {
    tables.iter().find_map(|table| {
        let name = table.name_of(address)?;
        let whole = [name, b".", table.network()].concat();
        // The network's name may be one that can't be asked for.
        written(&whole).or_else(|| written(name))
    })
}

/// A name with dots, as names are written in messages.
fn written(name: &[u8]) -> Option<Vec<u8>> {
    if name.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split(|byte| *byte == b'.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label);
    }
    bytes.push(0);
    Some(bytes)
}

/// The address that `4.3.2.1.in-addr.arpa` or its IPv6 likeness stands for.
pub(crate) fn pointed_address(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        return reversed_v4(reversed).map(IpAddr::V4);
    }
    reversed_v6(name.strip_suffix(".ip6.arpa")?).map(IpAddr::V6)
}

fn reversed_v4(reversed: &str) -> Option<Ipv4Addr> {
    let mut parts = reversed.split('.');
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn reversed_v6(reversed: &str) -> Option<Ipv6Addr> {
    let mut bits = 0u128;
    let mut count = 0;
    for digit in reversed.split('.').rev() {
        let &[byte] = digit.as_bytes() else { return None };
        bits = bits << 4 | u128::from(char::from(byte).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits))
}
