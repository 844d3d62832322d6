//! Builds the expressions of one rule.
//!
//! In: matches and an action, in the order in which they shall be evaluated. Out: encoded expressions. Names and
//! numbers are those of linux/netfilter/nf_tables.h.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::batch::{DATA_VALUE, LIST_ITEM, put_verdict};
use super::element::{address_bytes, padded};
use crate::wire::Encoder;

/// The name all anonymous maps are made under; the kernel puts a number in place of `%d`.
pub(super) const ANONYMOUS_NAME: &str = "__map%d";

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const REGISTER_VERDICT: u32 = 0;
/// A 16-byte register; the four 4-byte registers from `REGISTER_PART` are the same memory.
const REGISTER: u32 = 1;
const REGISTER_PART: u32 = 8;
const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_IIFTYPE: u32 = 8;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
const CT_ZONE: u32 = 17;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// Source: linux/if_arp.h.
const TYPE_ETHERNET: u16 = 1;
const RTN_LOCAL: u32 = 2;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
/// `IPS_DST_NAT`. Source: linux/netfilter/nf_conntrack_common.h.
const STATUS_DNAT: u32 = 1 << 5;
const BASE_LINK: u32 = 0;
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

/// Which way a packet of a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CtDirection {
    /// The way the first packet went.
    Original = 0,
    /// The way back.
    Reply = 1,
}

/// What says at a bridge's port who sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StationField {
    /// Ethernet and IPv4 sender of a packet.
    Ipv4,
    /// Ethernet and IPv6 sender of a packet.
    Ipv6,
    /// What an ARP message says about its sender.
    Arp,
}

/// Which address of a packet.
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
        let key = if direction == Direction::In { META_IIFNAME } else { META_OIFNAME };
        self.meta(key, REGISTER).compare(is, &padded(name))
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

    /// Matches IPv6 packets.
    #[must_use]
    pub fn ipv6(self) -> Self {
        self.meta(META_NFPROTO, REGISTER).compare(true, &[NFPROTO_IPV6])
    }

    /// Matches packets of the address's family from or to its network.
    #[must_use]
    pub fn network(self, field: IpField, network: IpAddr, prefix: u8) -> Self {
        match network {
            IpAddr::V4(network) => self.ipv4().address(field, network, prefix),
            IpAddr::V6(network) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                let network = network.to_bits() & mask;
                let loaded = self.ipv6().payload(BASE_NETWORK, field.offset6(), 16, REGISTER);
                let masked = if prefix < 128 { loaded.mask(&mask.to_be_bytes()) } else { loaded };
                masked.compare(true, &network.to_be_bytes())
            }
        }
    }

    /// Matches frames that carry this protocol (`0x0800`: IPv4).
    #[must_use]
    pub fn ether_type(self, number: u16) -> Self {
        self.meta(META_PROTOCOL, REGISTER).compare(true, &number.to_be_bytes())
    }

    /// Matches frames whose Ethernet sender is in a set.
    #[must_use]
    pub fn mac_in(self, set: &str) -> Self {
        self.load_mac().look_for(set)
    }

    /// Matches frames whose link and sender are in a set of [`super::MapKey::Station`].
    #[must_use]
    pub fn station_in(self, field: StationField, set: &str) -> Self {
        const MAC: u32 = REGISTER_PART + 4;
        const IP: u32 = MAC + 2;
        let named = self.meta(META_IIFNAME, REGISTER);
        match field {
            StationField::Ipv4 => named
                .payload(BASE_LINK, 6, 6, MAC)
                .payload(BASE_NETWORK, IpField::Source.offset(), 4, IP)
                .look_for(set),
            StationField::Ipv6 => named
                .payload(BASE_LINK, 6, 6, MAC)
                .payload(BASE_NETWORK, IpField::Source.offset6(), 16, IP)
                .look_for(set),
            StationField::Arp => {
                named.payload(BASE_NETWORK, 8, 6, MAC).payload(BASE_NETWORK, 14, 4, IP).look_for(set)
            }
        }
    }

    /// Matches packets of the given family whose destination is in a set.
    #[must_use]
    pub fn destination_in(self, is_ipv6: bool, set: &str) -> Self {
        self.load_destination(is_ipv6).look_for(set)
    }

    /// Looks up the destination of packets of the given family in a verdict map.
    #[must_use]
    pub fn destination_verdict(self, is_ipv6: bool, map: &str) -> Self {
        self.load_destination(is_ipv6).lookup(map, None, REGISTER_VERDICT)
    }

    /// Matches packets that go this way of their connection.
    #[must_use]
    pub fn ct_direction(self, direction: CtDirection) -> Self {
        self.ct(CT_DIRECTION).compare(true, &[direction as u8])
    }

    /// Matches connections with this mark, or with any other.
    #[must_use]
    pub fn ct_mark(self, mark: u32, is: bool) -> Self {
        self.ct(CT_MARK).compare(is, &mark.to_ne_bytes())
    }

    /// Gives the connection a mark.
    #[must_use]
    pub fn set_ct_mark(self, mark: u32) -> Self {
        self.immediate(REGISTER, &mark.to_ne_bytes()).set_ct(CT_MARK, None)
    }

    /// Gives the connection the mark that a map has for the frame's Ethernet sender; without one, nothing happens.
    #[must_use]
    pub fn set_ct_mark_by_mac(self, map: &str) -> Self {
        self.load_mac().lookup(map, None, REGISTER).set_ct(CT_MARK, None)
    }

    /// Has the connection tracked in the zone that a map has for the frame's Ethernet sender: the way there only, so that
    /// replies are found without knowing it. Before connection tracking only (priority below -200).
    #[must_use]
    pub fn set_original_zone_by_mac(self, map: &str) -> Self {
        self.load_mac().lookup(map, None, REGISTER).set_ct(CT_ZONE, Some(CtDirection::Original))
    }

    /// Gives the packet the mark of its connection.
    #[must_use]
    pub fn mark_as_connection(self) -> Self {
        self.ct(CT_MARK).expression("meta", |data| {
            data.u32_be(2, META_MARK);
            data.u32_be(3, REGISTER);
        })
    }

    /// Matches TCP packets that open a connection, or answer to that.
    #[must_use]
    pub fn tcp_syn(self) -> Self {
        const TCP: u8 = 6;
        const FLAGS: u32 = 13;
        const SYN: u8 = 2;
        self.protocol(TCP).payload(BASE_TRANSPORT, FLAGS, 1, REGISTER).mask(&[SYN]).compare(false, &[0])
    }

    /// Lowers the largest segment that a TCP side says it takes, in bytes.
    #[must_use]
    pub fn clamp_segment(self, bytes: u16) -> Self {
        const TCP_OPTION: u32 = 1;
        const MAXIMUM_SEGMENT: u8 = 2;
        self.immediate(REGISTER, &bytes.to_be_bytes()).expression("exthdr", |data| {
            data.u32_be(7, REGISTER);
            data.u8(2, MAXIMUM_SEGMENT);
            data.u32_be(3, 2);
            data.u32_be(4, 2);
            data.u32_be(6, TCP_OPTION);
        })
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

    /// Translates the destination to one address; the port stays.
    #[must_use]
    pub fn dnat_address(self, ip: IpAddr) -> Self {
        self.immediate(REGISTER_PART, &address_bytes(ip)).nat(NAT_DESTINATION, ip.is_ipv6(), None)
    }

    /// Translates the destination to one address and port.
    #[must_use]
    pub fn dnat_socket(self, to: SocketAddr) -> Self {
        let port = port_register(to.is_ipv6());
        self.immediate(REGISTER_PART, &address_bytes(to.ip())).immediate(port, &to.port().to_be_bytes()).nat(
            NAT_DESTINATION,
            to.is_ipv6(),
            Some(port),
        )
    }

    /// Translates the destination to the addresses that an anonymous map of the same batch holds under 0, 1, … `count`-1 in
    /// turn, one step per connection; the port stays.
    #[must_use]
    pub fn dnat_in_turn_address(self, map: u32, count: u32, is_ipv6: bool) -> Self {
        self.turn(count).lookup(ANONYMOUS_NAME, Some(map), REGISTER).nat(NAT_DESTINATION, is_ipv6, None)
    }

    /// The same with addresses and ports.
    #[must_use]
    pub fn dnat_in_turn_socket(self, map: u32, count: u32, is_ipv6: bool) -> Self {
        let port = Some(port_register(is_ipv6));
        self.turn(count).lookup(ANONYMOUS_NAME, Some(map), REGISTER).nat(NAT_DESTINATION, is_ipv6, port)
    }

    /// Translates the source to one address; the port changes only where it must.
    #[must_use]
    pub fn snat_address(self, ip: IpAddr) -> Self {
        self.immediate(REGISTER_PART, &address_bytes(ip)).nat(NAT_SOURCE, ip.is_ipv6(), None)
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
        self.nat(NAT_DESTINATION, false, Some(port_register(false)))
    }

    /// Translates to the address in the first register, and the port in another if any.
    fn nat(self, kind: u32, is_ipv6: bool, port: Option<u32>) -> Self {
        const PORT_SPECIFIED: u32 = 2;
        let family = if is_ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
        self.expression("nat", |data| {
            data.u32_be(1, kind);
            data.u32_be(2, u32::from(family));
            data.u32_be(3, REGISTER_PART);
            if let Some(port) = port {
                data.u32_be(5, port);
                data.u32_be(7, PORT_SPECIFIED);
            }
        })
    }

    /// Loads 0, 1, … `count`-1 in turn.
    fn turn(self, count: u32) -> Self {
        const INCREMENTAL: u32 = 0;
        self.expression("numgen", |data| {
            data.u32_be(1, REGISTER);
            data.u32_be(2, count);
            data.u32_be(3, INCREMENTAL);
            data.u32_be(4, 0);
        })
    }

    fn load_mac(self) -> Self {
        self.meta(META_IIFTYPE, REGISTER)
            .compare(true, &TYPE_ETHERNET.to_ne_bytes())
            .payload(BASE_LINK, 6, 6, REGISTER)
    }

    fn load_destination(self, is_ipv6: bool) -> Self {
        if is_ipv6 {
            self.ipv6().payload(BASE_NETWORK, IpField::Destination.offset6(), 16, REGISTER)
        } else {
            self.ipv4().payload(BASE_NETWORK, IpField::Destination.offset(), 4, REGISTER)
        }
    }

    fn look_for(self, set: &str) -> Self {
        self.expression("lookup", |data| {
            data.text(1, set);
            data.u32_be(2, REGISTER);
        })
    }

    fn set_ct(self, key: u32, direction: Option<CtDirection>) -> Self {
        self.expression("ct", |data| {
            data.u32_be(2, key);
            if let Some(direction) = direction {
                data.u8(3, direction as u8);
            }
            data.u32_be(4, REGISTER);
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

    fn mask(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |data| {
            data.u32_be(1, REGISTER);
            data.u32_be(2, REGISTER);
            data.u32_be(3, u32::try_from(mask.len()).expect("masks are short"));
            put_value(data, 4, mask);
            put_value(data, 5, &vec![0; mask.len()]);
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
    /// Where the address lies in the IPv6 header.
    fn offset6(self) -> u32 {
        match self {
            Self::Source => 8,
            Self::Destination => 24,
        }
    }

    /// Where the address lies in the IPv4 header.
    fn offset(self) -> u32 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

/// The register behind an address that lies in [`REGISTER_PART`].
fn port_register(is_ipv6: bool) -> u32 {
    if is_ipv6 { REGISTER_PART + 4 } else { REGISTER_PART + 1 }
}

fn put_value(encoder: &mut Encoder, kind: u16, value: &[u8]) {
    let nest = encoder.nest(kind);
    encoder.attribute(DATA_VALUE, value);
    encoder.end(nest);
}
