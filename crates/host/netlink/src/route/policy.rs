//! Rules that lead marked packets to a routing table of their own.
//!
//! In: rules of the one shape that we use: a mark, a table, a priority. Out: those that are there. Changes go through
//! [`super::RouteBatch`].

use super::RouteSocket;
use crate::NetlinkError;
use crate::socket;
use crate::wire::{self, Encoder, Message};

/// Message and attribute numbers. Source: linux/rtnetlink.h, linux/fib_rules.h.
pub(super) const NEW_RULE: u16 = 32;
pub(super) const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const HEADER: usize = 12;
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const TABLE: u16 = 15;
const TO_TABLE: u8 = 1;

/// Packets with `mark` are routed by `table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// For IPv6 packets; else for IPv4.
    pub is_ipv6: bool,
    /// Lower ones are asked first; the main table has 32766.
    pub priority: u32,
    /// The mark, compared in all bits.
    pub mark: u32,
    /// The table.
    pub table: u32,
}

impl RouteSocket {
    /// Every rule that asks for a mark, of both families.
    pub fn policy_rules(&mut self) -> Result<Vec<PolicyRule>, NetlinkError> {
        let mut found = Vec::new();
        self.query(
            "list routing rules",
            GET_RULE,
            socket::DUMP,
            |encoder| encoder.raw(&[0; HEADER]),
            |message| found.extend(read_rule(&message)),
        )?;
        Ok(found)
    }
}

pub(super) fn put_rule(encoder: &mut Encoder, rule: &PolicyRule) {
    let family = if rule.is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let family = u8::try_from(family).expect("address families in use are below 256");
    let table = u8::try_from(rule.table).unwrap_or(0);
    encoder.raw(&[family, 0, 0, 0, table, 0, 0, TO_TABLE]);
    encoder.raw(&[0; 4]);
    encoder.u32(PRIORITY, rule.priority);
    encoder.u32(MARK, rule.mark);
    encoder.u32(TABLE, rule.table);
}

fn read_rule(message: &Message<'_>) -> Option<PolicyRule> {
    if message.kind != NEW_RULE || *message.payload.get(7)? != TO_TABLE {
        return None;
    }
    let is_ipv6 = i32::from(*message.payload.first()?) == libc::AF_INET6;
    let (mut priority, mut mark, mut table) = (0, None, u32::from(*message.payload.get(4)?));
    for (kind, value) in wire::attributes_after(message.payload, HEADER) {
        match kind {
            PRIORITY => priority = wire::read_u32(value, 0)?,
            MARK => mark = wire::read_u32(value, 0),
            TABLE => table = wire::read_u32(value, 0)?,
            _ => {}
        }
    }
    Some(PolicyRule { is_ipv6, priority, mark: mark?, table })
}
