//! A container's own side of the routing mesh: it answers through its node's ingress address.
//!
//! In: an open namespace and a plan. Out: rules, a routing rule and a route in the container's namespace, which need no
//! daemon afterwards. To be called when the interfaces have their addresses, and again when they change.

use std::os::fd::BorrowedFd;

use netlink::namespace;
use netlink::nft::NftSocket;
use netlink::route::{PolicyRule, Route, RouteBatch, RouteSocket};
use netplan::TaskSide;
use netplan::mesh::{MarkRoute, RULE_PRIORITY};

use crate::NetworkError;
use crate::apply_table;
use crate::sysctl;

const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;

/// Sets up the container's side of the mesh in its namespace. May be repeated.
pub fn plug_task(container: BorrowedFd<'_>, side: &TaskSide) -> Result<(), NetworkError> {
    namespace::within(container, || plug(side))
        .map_err(|e| NetworkError::namespace("enter", &side.link, e))?
}

fn plug(side: &TaskSide) -> Result<(), NetworkError> {
    // Packets of clients come in by another interface than packets to them would leave by.
    sysctl::set_where_there(&[("ipv4/conf/all/rp_filter", "0")])?;
    sysctl::set_of_link(
        &side.link,
        &[("ipv4", "rp_filter", "0"), ("ipv4", "accept_redirects", "0"), ("ipv6", "accept_redirects", "0")],
    )?;
    let mut route = RouteSocket::open()?;
    let index = route.index(&side.link)?;
    let mut batch = RouteBatch::new();
    for marked in side.mark_routes() {
        batch.put_route(&default_route(&marked, index));
        batch.add_rule(&policy_rule(&marked));
    }
    for via in side.last_resorts() {
        batch.put_route(&default_route(&MarkRoute { mark: 0, table: MAIN_TABLE, via }, index));
    }
    route.commit(batch)?;
    Ok(NftSocket::open()?.commit(apply_table::replace(&side.table()))?)
}

pub(crate) fn policy_rule(marked: &MarkRoute) -> PolicyRule {
    let MarkRoute { mark, table, via } = *marked;
    PolicyRule { is_ipv6: via.is_ipv6(), priority: RULE_PRIORITY, mark, table }
}

pub(crate) fn default_route(marked: &MarkRoute, index: u32) -> Route {
    let destination = match marked.via {
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    Route { destination, prefix: 0, gateway: Some(marked.via), index: Some(index), table: marked.table }
}
