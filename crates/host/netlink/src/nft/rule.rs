//! Builds the expressions of one rule.
//!
//! In: matches and an action, in the order in which they shall be evaluated. Out: encoded expressions. Names and
//! numbers are those of linux/netfilter/nf_tables.h.

use std::net::Ipv4Addr;

use super::batch::{DATA_VALUE, LIST_ITEM, put_verdict};
use crate::wire::Encoder;

/// The name all anonymous maps are made under; the kernel puts a number in place of `%d`.
pub(super) const ANONYMOUS_NAME: &str = "__map%d";

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const REGISTER_VERDICT: u32 = 0;
/// A 16-byte register; the four 4-byte registers from `REGISTER_PART` are the same memory.
const REGISTER: u32 = 1;
const REGISTER_PART: u32 = 8;
const META_OIFNAME: u32 = 7;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const NFPROTO_IPV4: u8 = 2;
const RTN_LOCAL: u32 = 2;
/// `IPS_DST_NAT`. Source: linux/netfilter/nf_conntrack_common.h.
const STATUS_DNAT: u32 = 1 << 5;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves this base chain; later ones still see it.
    Accept,
    /// Ends here.
    Drop,
    /// Goes on in a chain and comes back.
    Jump(String),
    /// Goes on in a chain and does not come back.
    Goto(String),
    /// Goes back to the calling chain.
    Return,
}

impl Verdict {
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Accept => 1,
            Self::Drop => 0,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }
}

/// Which interface of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The one it came in by.
    In,
    /// The one it will leave by.
    Out,
}

/// Which IPv4 address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpField {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Bits of the state of a connection, to be or-ed. Source: linux/netfilter/nf_conntrack_common.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtState(u32);

impl CtState {
    /// Belongs to no connection the kernel can make sense of.
    pub const INVALID: Self = Self(1);
    /// Both sides were seen.
    pub const ESTABLISHED: Self = Self(2);
    /// Made by another connection (ICMP errors).
    pub const RELATED: Self = Self(4);
    /// The first packet.
    pub const NEW: Self = Self(8);
}

impl std::ops::BitOr for CtState {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The expressions of one rule, built left to right.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    expressions: Encoder,
}

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Matches the name of an interface, or any other than that.
    #[must_use]
    pub fn interface(self, direction: Direction, name: &str, is: bool) -> Self {
        let mut padded = [0u8; libc::IFNAMSIZ];
        let length = name.len().min(libc::IFNAMSIZ - 1);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        let key = if direction == Direction::In { META_IIFNAME } else { META_OIFNAME };
        self.meta(key, REGISTER).compare(is, &padded)
    }

    /// Matches IPv4 packets.
    #[must_use]
    pub fn ipv4(self) -> Self {
        self.meta(META_NFPROTO, REGISTER).compare(true, &[NFPROTO_IPV4])
    }

    /// Matches an IPv4 network; comes after [`Rule::ipv4`].
    #[must_use]
    pub fn address(self, field: IpField, network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = network.to_bits() & mask;
        let loaded = self.payload(BASE_NETWORK, field.offset(), 4, REGISTER);
        let masked = if prefix < 32 { loaded.mask(&mask.to_be_bytes()) } else { loaded };
        masked.compare(true, &network.to_be_bytes())
    }

    /// Matches packets to any address of this machine.
    #[must_use]
    pub fn destination_is_local(self) -> Self {
        const FIB_DESTINATION: u32 = 2;
        const FIB_ADDRESS_TYPE: u32 = 3;
        self.expression("fib", |data| {
            data.u32_be(3, FIB_DESTINATION);
            data.u32_be(2, FIB_ADDRESS_TYPE);
            data.u32_be(1, REGISTER);
        })
        .compare(true, &RTN_LOCAL.to_ne_bytes())
    }

    /// Matches connections in one of these states.
    #[must_use]
    pub fn ct_state(self, states: CtState) -> Self {
        self.ct(CT_STATE).mask(&states.0.to_ne_bytes()).compare(false, &[0; 4])
    }

    /// Matches connections whose destination was translated.
    #[must_use]
    pub fn ct_is_dnat(self) -> Self {
        self.ct(CT_STATUS).mask(&STATUS_DNAT.to_ne_bytes()).compare(false, &[0; 4])
    }

    /// Looks up `protocol . destination port` in a verdict map.
    #[must_use]
    pub fn port_verdict(self, map: &str) -> Self {
        self.meta(META_L4PROTO, REGISTER_PART).payload(BASE_TRANSPORT, 2, 2, REGISTER_PART + 1).lookup(
            map,
            None,
            REGISTER_VERDICT,
        )
    }

    /// Looks up `destination address . protocol . destination port` in a verdict map; comes after [`Rule::ipv4`].
    #[must_use]
    pub fn address_port_verdict(self, map: &str) -> Self {
        self.payload(BASE_NETWORK, IpField::Destination.offset(), 4, REGISTER_PART)
            .meta(META_L4PROTO, REGISTER_PART + 1)
            .payload(BASE_TRANSPORT, 2, 2, REGISTER_PART + 2)
            .lookup(map, None, REGISTER_VERDICT)
    }

    /// Translates the destination to one address and port.
    #[must_use]
    pub fn dnat(self, ip: Ipv4Addr, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.immediate(REGISTER_PART, &ip.octets())
            .immediate(REGISTER_PART + 1, &[high, low])
            .dnat_from_registers()
    }

    /// Translates the destination to what an anonymous map of the same batch holds under 0, 1, … `count`-1 in turn,
    /// one step per connection.
    #[must_use]
    pub fn dnat_in_turn(self, map: u32, count: u32) -> Self {
        const INCREMENTAL: u32 = 0;
        self.expression("numgen", |data| {
            data.u32_be(1, REGISTER);
            data.u32_be(2, count);
            data.u32_be(3, INCREMENTAL);
            data.u32_be(4, 0);
        })
        .lookup(ANONYMOUS_NAME, Some(map), REGISTER)
        .dnat_from_registers()
    }

    /// Translates the source to the address of the interface the packet leaves by.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| ())
    }

    /// Refuses: a reset for TCP, otherwise ICMP port unreachable.
    #[must_use]
    pub fn reject(self, with_reset: bool) -> Self {
        const TCP_RESET: u32 = 1;
        const ICMPX_UNREACHABLE: u32 = 2;
        const PORT_UNREACHABLE: u8 = 1;
        self.expression("reject", |data| {
            data.u32_be(1, if with_reset { TCP_RESET } else { ICMPX_UNREACHABLE });
            data.u8(2, if with_reset { 0 } else { PORT_UNREACHABLE });
        })
    }

    /// Matches the transport protocol by its number.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.meta(META_L4PROTO, REGISTER).compare(true, &[number])
    }

    /// Ends the rule with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |data| {
            data.u32_be(1, REGISTER_VERDICT);
            let nest = data.nest(2);
            put_verdict(data, verdict);
            data.end(nest);
        })
    }

    pub(super) fn put(&self, encoder: &mut Encoder) {
        encoder.raw(self.expressions.bytes());
    }

    fn dnat_from_registers(self) -> Self {
        const DNAT: u32 = 1;
        const PORT_SPECIFIED: u32 = 2;
        self.expression("nat", |data| {
            data.u32_be(1, DNAT);
            data.u32_be(2, u32::from(NFPROTO_IPV4));
            data.u32_be(3, REGISTER_PART);
            data.u32_be(5, REGISTER_PART + 1);
            data.u32_be(7, PORT_SPECIFIED);
        })
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |data| {
            data.u32_be(2, key);
            data.u32_be(1, register);
        })
    }

    fn ct(self, key: u32) -> Self {
        self.expression("ct", |data| {
            data.u32_be(2, key);
            data.u32_be(1, REGISTER);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |data| {
            data.u32_be(1, register);
            data.u32_be(2, base);
            data.u32_be(3, offset);
            data.u32_be(4, length);
        })
    }

    fn mask(self, mask: &[u8; 4]) -> Self {
        self.expression("bitwise", |data| {
            data.u32_be(1, REGISTER);
            data.u32_be(2, REGISTER);
            data.u32_be(3, 4);
            put_value(data, 4, mask);
            put_value(data, 5, &[0; 4]);
        })
    }

    fn compare(self, is: bool, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.u32_be(1, REGISTER);
            data.u32_be(2, u32::from(!is));
            put_value(data, 3, value);
        })
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.u32_be(1, register);
            put_value(data, 2, value);
        })
    }

    fn lookup(self, map: &str, id: Option<u32>, to: u32) -> Self {
        self.expression("lookup", |data| {
            data.text(1, map);
            data.u32_be(2, REGISTER);
            data.u32_be(3, to);
            if let Some(id) = id {
                data.u32_be(4, id);
            }
        })
    }

    fn expression(mut self, name: &str, build: impl FnOnce(&mut Encoder)) -> Self {
        let item = self.expressions.nest(LIST_ITEM);
        self.expressions.text(EXPRESSION_NAME, name);
        let data = self.expressions.nest(EXPRESSION_DATA);
        build(&mut self.expressions);
        self.expressions.end(data);
        self.expressions.end(item);
        self
    }
}

impl IpField {
    /// Where the address lies in the IPv4 header.
    fn offset(self) -> u32 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

fn put_value(encoder: &mut Encoder, kind: u16, value: &[u8]) {
    let nest = encoder.nest(kind);
    encoder.attribute(DATA_VALUE, value);
    encoder.end(nest);
}
