//! Security associations and policies of the kernel's IPsec (XFRM), for ESP with AES-GCM in transport mode.
//!
//! In: who talks to whom, with which key. Out: associations and policies, made, listed and removed. Layouts and numbers are
//! those of linux/xfrm.h. Knows no rotation and never makes a key.

use std::fmt;
use std::net::IpAddr;

use rustix::net::netlink;

use crate::NetlinkError;
use crate::batch::{Batch, never};
use crate::socket::{self, Socket};
use crate::wire::{self, Encoder, Message};

const NEW_SA: u16 = 0x10;
const DELETE_SA: u16 = 0x11;
const GET_SA: u16 = 0x12;
const NEW_POLICY: u16 = 0x13;
const DELETE_POLICY: u16 = 0x14;
const GET_POLICY: u16 = 0x15;
const UPDATE_POLICY: u16 = 0x19;

const ATTRIBUTE_TEMPLATE: u16 = 5;
const ATTRIBUTE_AEAD: u16 = 18;
const ATTRIBUTE_REPLAY_ESN: u16 = 23;

const UDP: u8 = 17;
const ESP: u8 = 50;
const MODE_TRANSPORT: u8 = 0;
/// Of policies between two machines, and of those for everybody, which are looked at after them: the lowest goes first.
const PRIORITY_OF_PAIR: u32 = 0;
const PRIORITY_OF_ALL: u32 = 1;
/// `XFRM_STATE_ESN`: 64-bit sequence numbers, of which 32 go over the wire. A fast link uses up 32 bits within hours.
const FLAG_ESN: u8 = 128;
/// Words of the window in which packets may overtake each other. chosen: 1,024 packets.
const REPLAY_WORDS: u32 = 32;
const ALL_ALGORITHMS: u32 = u32::MAX;
const NEVER: u64 = u64::MAX;
const SELECTOR: usize = 56;
const SA_INFO: usize = 224;
const POLICY_INFO: usize = 168;

/// Name of AES-GCM as ESP uses it. Source: RFC 4106; linux, `net/xfrm/xfrm_algo.c`.
const AES_GCM: &str = "rfc4106(gcm(aes))";
const ALGORITHM_NAME: usize = 64;
/// Check value of 16 bytes, in bits.
const CHECK_BITS: u32 = 128;

/// A key of AES-GCM with the 4 bytes that begin every nonce; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AeadKey(pub [u8; 20]);

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(…)")
    }
}

/// One direction between two machines, under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// Number in every packet that finds the association; above 255.
    pub spi: u32,
    /// Ties associations to policies.
    pub request_id: u32,
    /// The key.
    pub key: AeadKey,
}

/// Which association an entry of the kernel's list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssociationId {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// Its number.
    pub spi: u32,
    /// What ties it to policies.
    pub request_id: u32,
}

/// Which way packets of a policy go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Way {
    /// Packets that arrive: those that were not encrypted are dropped.
    In = 0,
    /// Packets that leave: they are encrypted, or dropped when there is no key.
    Out = 1,
}

/// UDP packets to one port from one machine to another are encrypted.
///
/// The unspecified address stands for every machine; where two machines have a policy of their own, that one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Which way.
    pub way: Way,
    /// Who sends.
    pub source: IpAddr,
    /// Who receives; of the same version of IP.
    pub destination: IpAddr,
    /// UDP port of the receiver.
    pub port: u16,
    /// What ties associations to it.
    pub request_id: u32,
    /// Of the association that new packets take; packets that arrive may have any of the same request id.
    pub spi: Option<u32>,
}

/// Changes to be sent together, in the order in which they shall happen.
#[derive(Debug, Default)]
pub struct XfrmBatch {
    changes: Batch,
}

/// A socket for associations and policies in the namespace it was opened in.
#[derive(Debug)]
pub struct XfrmSocket {
    socket: Socket,
}

impl XfrmSocket {
    /// Opens the socket in the calling thread's network namespace. Fails on a kernel without IPsec.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Some(netlink::XFRM), 0)? })
    }

    /// Adds an association, unless it is there; refused with `EPROTONOSUPPORT` or `ENOENT` by a kernel without ESP or AES-GCM.
    pub fn add_association(&mut self, association: &Association) -> Result<(), NetlinkError> {
        let mut batch = XfrmBatch::new();
        batch.add_association(association);
        self.commit(batch)
    }

    /// Removes an association; it need not be there.
    pub fn delete_association(&mut self, id: &AssociationId) -> Result<(), NetlinkError> {
        let mut batch = XfrmBatch::new();
        batch.delete_association(id);
        self.commit(batch)
    }

    /// Every association for ESP.
    pub fn associations(&mut self) -> Result<Vec<AssociationId>, NetlinkError> {
        let mut found = Vec::new();
        self.list("list associations", GET_SA, SA_INFO, |message| found.extend(read_association(&message)))?;
        Ok(found)
    }

    /// Every policy for UDP to one port that this module could have made.
    pub fn policies(&mut self) -> Result<Vec<Policy>, NetlinkError> {
        let mut found = Vec::new();
        self.list("list policies", GET_POLICY, POLICY_INFO, |message| found.extend(read_policy(&message)))?;
        Ok(found)
    }

    /// Applies all changes, in their order. All are tried; the first refusal is told, but not that something to be removed is
    /// gone.
    pub fn commit(&mut self, batch: XfrmBatch) -> Result<(), NetlinkError> {
        self.socket.commit("change associations and policies", batch.changes)
    }

    fn list(
        &mut self,
        operation: &'static str,
        kind: u16,
        length: usize,
        each: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut encoder = Encoder::new();
        let mark = encoder.start(kind, socket::REQUEST | socket::DUMP, sequence);
        encoder.raw(&vec![0; length]);
        encoder.finish(mark);
        self.socket.exchange(operation, sequence, encoder.bytes(), each)
    }
}

impl XfrmBatch {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an association; where one of its receiver has the same number, that one stays.
    pub fn add_association(&mut self, association: &Association) {
        let flags = socket::CREATE | socket::EXCLUSIVE;
        self.changes.push("add association", NEW_SA, flags, NetlinkError::is_exists, |encoder| {
            encoder.raw(&association_info(association));
            encoder.attribute(ATTRIBUTE_AEAD, &algorithm(&association.key));
            encoder.attribute(ATTRIBUTE_REPLAY_ESN, &replay_state());
        });
    }

    /// Removes an association.
    pub fn delete_association(&mut self, id: &AssociationId) {
        self.changes.push("delete association", DELETE_SA, 0, NetlinkError::is_missing, |encoder| {
            let mut bytes = [0; 24];
            put_address(&mut bytes[0..16], id.destination);
            bytes[16..20].copy_from_slice(&id.spi.to_be_bytes());
            bytes[20..22].copy_from_slice(&family(id.destination).to_ne_bytes());
            bytes[22] = ESP;
            encoder.raw(&bytes);
        });
    }

    /// Makes a policy what it should be, whether it exists or not; between the two, packets find one of them.
    pub fn put_policy(&mut self, policy: &Policy) {
        let flags = socket::CREATE | socket::REPLACE;
        self.changes.push("put policy", UPDATE_POLICY, flags, never, |encoder| {
            encoder.raw(&policy_info(policy));
            encoder.attribute(ATTRIBUTE_TEMPLATE, &template(policy));
        });
    }

    /// Removes a policy.
    pub fn delete_policy(&mut self, policy: &Policy) {
        self.changes.push("delete policy", DELETE_POLICY, 0, NetlinkError::is_missing, |encoder| {
            let mut bytes = [0; 64];
            put_selector(&mut bytes[..SELECTOR], policy);
            bytes[60] = policy.way as u8;
            encoder.raw(&bytes);
        });
    }
}

impl Association {
    /// What it is found by.
    pub fn id(&self) -> AssociationId {
        let Self { source, destination, spi, request_id, .. } = *self;
        AssociationId { source, destination, spi, request_id }
    }
}

fn family(ip: IpAddr) -> u16 {
    let number = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u16::try_from(number).expect("families are small numbers")
}

fn put_address(to: &mut [u8], ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => to[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => to[..16].copy_from_slice(&ip.octets()),
    }
}

fn read_address(bytes: &[u8], family: u16) -> Option<IpAddr> {
    if i32::from(family) == libc::AF_INET {
        Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))
    } else {
        Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?))
    }
}

/// `struct xfrm_lifetime_cfg` without any limit.
fn put_no_limits(to: &mut [u8]) {
    for limit in 0..4 {
        to[limit * 8..limit * 8 + 8].copy_from_slice(&NEVER.to_ne_bytes());
    }
}

/// `struct xfrm_usersa_info`. Its selector stays empty: the policies choose.
fn association_info(association: &Association) -> [u8; SA_INFO] {
    let mut bytes = [0; SA_INFO];
    let family = family(association.destination).to_ne_bytes();
    bytes[40..42].copy_from_slice(&family);
    put_address(&mut bytes[56..72], association.destination);
    bytes[72..76].copy_from_slice(&association.spi.to_be_bytes());
    bytes[76] = ESP;
    put_address(&mut bytes[80..96], association.source);
    put_no_limits(&mut bytes[96..160]);
    bytes[208..212].copy_from_slice(&association.request_id.to_ne_bytes());
    bytes[212..214].copy_from_slice(&family);
    bytes[214] = MODE_TRANSPORT;
    bytes[216] = FLAG_ESN;
    bytes
}

/// `struct xfrm_algo_aead` with the key.
fn algorithm(key: &AeadKey) -> Vec<u8> {
    let mut bytes = vec![0; ALGORITHM_NAME];
    bytes[..AES_GCM.len()].copy_from_slice(AES_GCM.as_bytes());
    let key_bits = u32::try_from(key.0.len() * 8).expect("a key is short");
    bytes.extend_from_slice(&key_bits.to_ne_bytes());
    bytes.extend_from_slice(&CHECK_BITS.to_ne_bytes());
    bytes.extend_from_slice(&key.0);
    bytes
}

/// `struct xfrm_replay_state_esn` with an empty window.
fn replay_state() -> Vec<u8> {
    let window = REPLAY_WORDS * u32::BITS;
    let head = [REPLAY_WORDS, 0, 0, 0, 0, window];
    let empty = vec![0u32; REPLAY_WORDS as usize];
    head.into_iter().chain(empty).flat_map(u32::to_ne_bytes).collect()
}

/// `struct xfrm_selector`: UDP to one port.
fn put_selector(to: &mut [u8], policy: &Policy) {
    put_address(&mut to[0..16], policy.destination);
    put_address(&mut to[16..32], policy.source);
    to[32..34].copy_from_slice(&policy.port.to_be_bytes());
    to[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    to[40..42].copy_from_slice(&family(policy.destination).to_ne_bytes());
    to[42] = prefix(policy.destination);
    to[43] = prefix(policy.source);
    to[44] = UDP;
}

fn prefix(ip: IpAddr) -> u8 {
    match ip {
        ip if ip.is_unspecified() => 0,
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `struct xfrm_userpolicy_info`.
fn policy_info(policy: &Policy) -> [u8; POLICY_INFO] {
    let mut bytes = [0; POLICY_INFO];
    put_selector(&mut bytes[..SELECTOR], policy);
    put_no_limits(&mut bytes[56..120]);
    let is_of_all = policy.source.is_unspecified() || policy.destination.is_unspecified();
    let priority = if is_of_all { PRIORITY_OF_ALL } else { PRIORITY_OF_PAIR };
    bytes[152..156].copy_from_slice(&priority.to_ne_bytes());
    bytes[160] = policy.way as u8;
    bytes
}

/// `struct xfrm_user_tmpl`.
fn template(policy: &Policy) -> [u8; 64] {
    let mut bytes = [0; 64];
    put_address(&mut bytes[0..16], policy.destination);
    if let (Way::Out, Some(spi)) = (policy.way, policy.spi) {
        bytes[16..20].copy_from_slice(&spi.to_be_bytes());
    }
    bytes[20] = ESP;
    bytes[24..26].copy_from_slice(&family(policy.destination).to_ne_bytes());
    put_address(&mut bytes[28..44], policy.source);
    bytes[44..48].copy_from_slice(&policy.request_id.to_ne_bytes());
    bytes[48] = MODE_TRANSPORT;
    for algorithms in [52, 56, 60] {
        bytes[algorithms..algorithms + 4].copy_from_slice(&ALL_ALGORITHMS.to_ne_bytes());
    }
    bytes
}

fn read_association(message: &Message<'_>) -> Option<AssociationId> {
    let bytes = message.payload.get(..SA_INFO)?;
    let family = u16::from_ne_bytes([bytes[212], bytes[213]]);
    if message.kind != NEW_SA || bytes[76] != ESP {
        return None;
    }
    Some(AssociationId {
        source: read_address(&bytes[80..96], family)?,
        destination: read_address(&bytes[56..72], family)?,
        spi: wire::read_u32_be(&bytes[72..76])?,
        request_id: wire::read_u32(bytes, 208)?,
    })
}

fn read_policy(message: &Message<'_>) -> Option<Policy> {
    let bytes = message.payload.get(..POLICY_INFO)?;
    let family = u16::from_ne_bytes([bytes[40], bytes[41]]);
    let way = match bytes[160] {
        0 => Way::In,
        1 => Way::Out,
        _ => return None,
    };
    if message.kind != NEW_POLICY || bytes[44] != UDP {
        return None;
    }
    let attributes = wire::attributes_after(message.payload, POLICY_INFO);
    let template =
        attributes.filter(|(kind, _)| *kind == ATTRIBUTE_TEMPLATE).map(|(_, value)| value).next()?;
    let spi = wire::read_u32_be(template.get(16..20)?)?;
    Some(Policy {
        way,
        source: read_address(&bytes[16..32], family)?,
        destination: read_address(&bytes[0..16], family)?,
        port: u16::from_be_bytes([bytes[32], bytes[33]]),
        request_id: wire::read_u32(template, 44)?,
        spi: (spi != 0).then_some(spi),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(way: Way) -> Policy {
        let [source, destination] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        Policy {
            way,
            source,
            destination,
            port: 4790,
            request_id: 7,
            spi: (way == Way::Out).then_some(0x1234),
        }
    }

    #[test]
    fn what_is_written_of_a_policy_is_read_again() {
        let any = |ip: &str| Policy { source: ip.parse().unwrap(), ..policy(Way::In) };
        let of_all = Policy { destination: "::".parse().unwrap(), ..any("::") };
        for policy in [policy(Way::In), policy(Way::Out), any("0.0.0.0"), of_all] {
            let mut encoder = Encoder::new();
            let mark = encoder.start(NEW_POLICY, 0, 1);
            encoder.raw(&policy_info(&policy));
            encoder.attribute(ATTRIBUTE_TEMPLATE, &template(&policy));
            encoder.finish(mark);
            let message = wire::messages(encoder.bytes()).next().unwrap();
            assert_eq!(read_policy(&message), Some(policy));
        }
    }

    #[test]
    fn a_policy_for_everybody_counts_after_those_of_pairs() {
        let of =
            |policy: &Policy| (policy_info(policy)[42], policy_info(policy)[43], policy_info(policy)[152]);
        assert_eq!(of(&policy(Way::Out)), (32, 32, 0));
        let any = Policy { destination: "0.0.0.0".parse().unwrap(), ..policy(Way::Out) };
        assert_eq!(of(&any), (0, 32, 1));
    }

    #[test]
    fn what_is_written_of_an_association_is_read_again_and_its_key_never_shows() {
        let Policy { source, destination, .. } = policy(Way::Out);
        let key = AeadKey([0xab; 20]);
        let association = Association { source, destination, spi: 0x1234, request_id: 7, key };
        let mut encoder = Encoder::new();
        let mark = encoder.start(NEW_SA, 0, 1);
        encoder.raw(&association_info(&association));
        encoder.finish(mark);
        let message = wire::messages(encoder.bytes()).next().unwrap();
        let id = AssociationId { source, destination, spi: 0x1234, request_id: 7 };
        assert_eq!(read_association(&message), Some(id));
        assert!(!format!("{association:?}").contains("171"), "{association:?}");
    }
}
