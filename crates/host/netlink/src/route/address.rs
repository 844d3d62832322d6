//! Adds and lists addresses and routes.
//!
//! In: addresses with their prefix. Out: what is there, or the kernel's refusal.

use std::net::IpAddr;

use super::{Address, Route, RouteSocket, family_of, put_ip, read_ip, unspecified_like};
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Encoder, Message};

/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// Length of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// Skips duplicate address detection, which would keep a v6 address unusable for a second. Source: linux/if_addr.h.
const IFA_F_NODAD: u8 = 0x02;

impl RouteSocket {
    /// Every address of the namespace, of both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list addresses",
            libc::RTM_GETADDR,
            socket::DUMP,
            |encoder| encoder.raw(&[0; ADDRESS_HEADER]),
            |message| found.extend(read_address(&message)),
        )?;
        Ok(found)
    }

    /// Adds an address. Fails with `EEXIST` when the link has it already.
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.request("add address", libc::RTM_NEWADDR, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            address_header(encoder, index, ip, prefix);
            put_ip(encoder, libc::IFA_LOCAL, ip);
            put_ip(encoder, libc::IFA_ADDRESS, ip);
            if let (IpAddr::V4(ip), 0..=30) = (ip, prefix) {
                let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                encoder.u32_be(libc::IFA_BROADCAST, ip.to_bits() | host_bits);
            }
        })
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.request("delete address", libc::RTM_DELADDR, 0, |encoder| {
            address_header(encoder, index, ip, prefix);
            put_ip(encoder, libc::IFA_LOCAL, ip);
        })
    }

    /// Every unicast route of the namespace, of both families and all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list routes",
            libc::RTM_GETROUTE,
            socket::DUMP,
            |encoder| encoder.raw(&[0; ROUTE_HEADER]),
            |message| found.extend(read_route(&message)),
        )?;
        Ok(found)
    }

    /// Adds a route.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.request("add route", libc::RTM_NEWROUTE, socket::CREATE | socket::EXCLUSIVE, |encoder| {
            put_route(encoder, route);
        })
    }

    /// Adds a route, or puts it in the place of the one to the same destination in its table.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.request("replace route", libc::RTM_NEWROUTE, socket::CREATE | socket::REPLACE, |encoder| {
            put_route(encoder, route);
        })
    }

    /// Makes an address of this machine one to which packets may also come in by this link: the kernel takes those to `::1`
    /// from links that have such a route alone. What sends to the address keeps to the routes that were there before.
    pub fn accept_on(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let added = self.request("add local route", libc::RTM_NEWROUTE, socket::CREATE, |encoder| {
            let (table, scope) = (libc::RT_TABLE_LOCAL, libc::RT_SCOPE_HOST);
            encoder.raw(&[family_of(ip), prefix, 0, 0, table, libc::RTPROT_BOOT, scope, libc::RTN_LOCAL]);
            encoder.raw(&[0; 4]);
            put_ip(encoder, libc::RTA_DST, ip);
            encoder.u32(libc::RTA_OIF, index);
        });
        match added {
            Err(e) if e.is_exists() => Ok(()),
            other => other,
        }
    }

    /// Takes a route away.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.request("delete route", libc::RTM_DELROUTE, 0, |encoder| put_route(encoder, route))
    }
}

/// Appends a route as a request says it.
pub(super) fn put_route(encoder: &mut Encoder, route: &Route) {
    let table = u8::try_from(route.table).unwrap_or(0);
    // A route without a gateway ends on the link itself; the kernel wants to be told so.
    let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let family = family_of(route.destination);
    encoder.raw(&[family, route.prefix, 0, 0, table, libc::RTPROT_BOOT, scope, libc::RTN_UNICAST]);
    encoder.raw(&[0; 4]);
    if route.prefix > 0 {
        put_ip(encoder, libc::RTA_DST, route.destination);
    }
    if let Some(gateway) = route.gateway {
        put_ip(encoder, libc::RTA_GATEWAY, gateway);
    }
    if let Some(index) = route.index {
        encoder.u32(libc::RTA_OIF, index);
    }
    encoder.u32(libc::RTA_TABLE, route.table);
}

fn address_header(encoder: &mut Encoder, index: u32, ip: IpAddr, prefix: u8) {
    let flags = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
    let scope = if ip.is_loopback() { libc::RT_SCOPE_HOST } else { libc::RT_SCOPE_UNIVERSE };
    encoder.raw(&[family_of(ip), prefix, flags, scope]);
    encoder.raw(&index.to_ne_bytes());
}

/// Reads an address from a new-address or delete-address message.
pub(crate) fn read_address(message: &Message<'_>) -> Option<Address> {
    if message.kind != libc::RTM_NEWADDR && message.kind != libc::RTM_DELADDR {
        return None;
    }
    let prefix = *message.payload.get(1)?;
    let index = wire::read_u32(message.payload, 4)?;
    let (mut local, mut address) = (None, None);
    for (kind, value) in wire::attributes_after(message.payload, ADDRESS_HEADER) {
        match kind {
            libc::IFA_LOCAL => local = read_ip(value),
            libc::IFA_ADDRESS => address = read_ip(value),
            _ => {}
        }
    }
    Some(Address { index, ip: local.or(address)?, prefix })
}

fn read_route(message: &Message<'_>) -> Option<Route> {
    if message.kind != libc::RTM_NEWROUTE || *message.payload.get(7)? != libc::RTN_UNICAST {
        return None;
    }
    let unspecified = match i32::from(*message.payload.first()?) {
        libc::AF_INET => unspecified_like([0, 0, 0, 0].into()),
        libc::AF_INET6 => unspecified_like([0u16; 8].into()),
        _ => return None,
    };
    let mut route = Route {
        destination: unspecified,
        prefix: *message.payload.get(1)?,
        gateway: None,
        index: None,
        table: u32::from(*message.payload.get(4)?),
    };
    for (kind, value) in wire::attributes_after(message.payload, ROUTE_HEADER) {
        match kind {
            libc::RTA_DST => route.destination = read_ip(value)?,
            libc::RTA_GATEWAY => route.gateway = read_ip(value),
            libc::RTA_OIF => route.index = wire::read_u32(value, 0),
            libc::RTA_TABLE => route.table = wire::read_u32(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
