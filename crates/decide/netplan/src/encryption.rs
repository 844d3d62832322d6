//! Decides what the kernel has to know so that packets of encrypted networks are encrypted between machines, and no others
//! pass.
//!
//! In: the encrypted networks that a node is told of, the keys of the swarm, what the kernel has of ours. Out: an
//! [`EncryptionPlan`] of associations (who sends to whom, under which key) and policies (what must be encrypted), and the
//! steps that lead to it. Both ends derive the same without a word between them. Never touches the kernel; never makes a
//! secret.
//!
//! ```text
//!  keys  oldest  middle  newest          one association for each pair of machines, direction and key
//!  in      x       x       x             whatever a peer has of them, it is understood
//!  out             x                     the policy of the pair names it; a change of keys swings it over
//!
//!  policies  out  own ─► peer   the association to send with           in   everybody ─► everybody   one of ours
//!            out  everybody ─► everybody   none there ever is: dropped
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use objects::NodeId;
use sha2::{Digest, Sha256};
use wire::network::{NetworkKey, Networks};

/// Marks what is ours, among associations and policies that others made: `skep`. chosen: everybody else counts from 1.
pub const REQUEST_ID: u32 = 0x736b_6570;
/// Of policies that no association ever belongs to.
pub const REQUEST_ID_OF_NONE: u32 = REQUEST_ID + 1;
/// What is derived says what it is for; a change of the way it is derived changes this.
const PURPOSE: &[u8] = b"skep overlay esp aes-128-gcm 1";
/// Numbers of associations below this are reserved. Source: RFC 4303.
const SPI_MIN: u32 = 256;
/// Keys with neighbouring numbers are told apart by so many bits of an association's number. chosen: four keys; three are
/// known at a time.
const KEY_BITS: u32 = 2;
/// Bytes that SHA-256 takes at a time. Source: RFC 2104.
const BLOCK: usize = 64;

/// The UDP port of encrypted networks, when others have `data_path_port`.
///
/// A port of its own, since policies of the kernel tell packets apart by port and not by the number of the network within.
pub fn port(data_path_port: u16) -> u16 {
    data_path_port.checked_add(1).unwrap_or(data_path_port - 1)
}

/// A machine as associations know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// Where its VXLAN traffic arrives.
    pub address: IpAddr,
    /// Names what its kernel holds; never zero.
    pub generation: u64,
}

/// What a node's encrypted networks ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionNeeds {
    /// Addresses of this machine with their ports: one, unless managers are about to tell another.
    own: BTreeSet<(IpAddr, u16)>,
    /// Machines that this one talks to, by its own address and port.
    peers: BTreeSet<(IpAddr, u16, Machine)>,
    /// Set when managers have not told yet where this machine is on some network.
    is_vague: bool,
}

/// A key of AES-GCM with the 4 bytes that begin every nonce; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CipherKey(pub [u8; 20]);

impl fmt::Debug for CipherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CipherKey(…)")
    }
}

/// One direction between two machines under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssociationId {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// Number that packets carry.
    pub spi: u32,
}

/// Which way packets of a policy go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// They arrive.
    In,
    /// They leave.
    Out,
}

/// UDP packets to a port must be encrypted. The unspecified address is everybody's; where a pair has a policy, that one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Which way.
    pub way: Way,
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// UDP port of the receiver.
    pub port: u16,
    /// Whose associations do: ours, or none.
    pub request_id: u32,
    /// Of the association that is sent with; any of ours when packets arrive.
    pub spi: Option<u32>,
}

/// What the kernel should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionPlan {
    /// Associations with their keys.
    pub associations: BTreeMap<AssociationId, CipherKey>,
    /// Those of them that this machine sends with.
    pub sending: BTreeSet<AssociationId>,
    /// Policies.
    pub policies: BTreeSet<Policy>,
    /// Marks of the keys that are known; `None` before anybody told them.
    known: Option<BTreeSet<u32>>,
    /// Whether a network may need what is not planned.
    is_vague: bool,
}

/// What the kernel has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Associations.
    pub associations: BTreeSet<AssociationId>,
    /// Policies.
    pub policies: BTreeSet<Policy>,
}

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Add an association.
    Add(AssociationId, CipherKey),
    /// Make a policy, or change what it asks for.
    Put(Policy),
    /// Remove a policy.
    Drop(Policy),
    /// Remove an association.
    Forget(AssociationId),
}

impl EncryptionNeeds {
    /// Of a node that is told of these networks.
    pub fn of(networks: &Networks, node: &NodeId) -> Self {
        let mut needs = Self::default();
        for view in networks.values().filter(|view| view.encrypted) {
            let Some(own) = view.peers.get(node).map(|own| own.data_path) else {
                needs.is_vague = true;
                continue;
            };
            let port = port(view.data_path_port);
            needs.own.insert((own, port));
            let others = view.peers.iter().filter(|(id, _)| *id != node).map(|(_, peer)| peer);
            let able = others.filter(|peer| {
                peer.encryption_generation != 0
                    && peer.data_path != own
                    && peer.data_path.is_ipv4() == own.is_ipv4()
            });
            needs.peers.extend(able.map(|peer| {
                let (address, generation) = (peer.data_path, peer.encryption_generation);
                (own, port, Machine { address, generation })
            }));
        }
        needs
    }

    /// What the kernel of this machine, which has this generation, should have. `keys`: the oldest first; `None` when nobody
    /// has told them yet.
    pub fn plan(&self, generation: u64, keys: Option<&[NetworkKey]>) -> EncryptionPlan {
        let known = keys.map(|keys| keys.iter().map(|key| mark(key.number)).collect());
        let mut plan = EncryptionPlan { known, is_vague: self.is_vague, ..EncryptionPlan::default() };
        for (own, port) in &self.own {
            plan.policies.extend(closed(*own, *port));
        }
        let keys = keys.unwrap_or_default();
        // The middle one: every node knows it since the last change.
        let Some(used) = keys.get(keys.len() / 2) else { return plan };
        for (own, port, peer) in &self.peers {
            let own = Machine { address: *own, generation };
            for key in keys {
                let (id, cipher) = derived(key, peer, &own);
                plan.associations.insert(id, cipher);
            }
            let (id, cipher) = derived(used, &own, peer);
            plan.associations.insert(id, cipher);
            plan.sending.insert(id);
            plan.policies.insert(Policy {
                way: Way::Out,
                source: own.address,
                destination: peer.address,
                port: *port,
                request_id: REQUEST_ID,
                spi: Some(id.spi),
            });
        }
        plan
    }
}

/// What lets nothing plain in or out, whether or not any key is known: whatever arrives must have been encrypted with a key of
/// ours, and whatever leaves for a machine without a policy is dropped.
fn closed(own: IpAddr, port: u16) -> [Policy; 2] {
    let any: IpAddr = match own {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    [(Way::In, REQUEST_ID), (Way::Out, REQUEST_ID_OF_NONE)].map(|(way, request_id)| Policy {
        way,
        source: any,
        destination: any,
        port,
        request_id,
        spi: None,
    })
}

impl EncryptionPlan {
    /// Nothing at all, of no key: for a machine that leaves.
    pub fn nothing() -> Self {
        Self { known: Some(BTreeSet::new()), ..Self::default() }
    }

    /// What leads from what is there to the plan, in an order in which nothing is lost and nothing plain passes: what arrives
    /// is understood before anybody can send it, and what leaves has a key before it is asked for.
    ///
    /// An association stays as long as its key is known, even when its pair has nothing to say to each other: made again under
    /// the same key it would count packets from one, and the other side, if it kept its own, would take them for old ones.
    /// While no key is known, nothing that may still be needed goes.
    pub fn steps(&self, found: &Found) -> Vec<Step> {
        let missing = self.associations.iter().filter(|(id, _)| !found.associations.contains(id));
        let (sent, taken): (Vec<_>, Vec<_>) = missing.partition(|(id, _)| self.sending.contains(id));
        let add = taken.into_iter().chain(sent).map(|(id, key)| Step::Add(*id, key.clone()));
        let put = self.policies.difference(&found.policies).copied().map(Step::Put);
        let is_certain = !self.is_vague && (self.known.is_some() || self.policies.is_empty());
        let is_replaced =
            |gone: &Policy| self.policies.iter().any(|policy| policy.selector() == gone.selector());
        let gone = found.policies.difference(&self.policies).filter(|gone| is_certain && !is_replaced(gone));
        let drop = gone.copied().map(Step::Drop);
        let forget = found.associations.iter().filter(|id| !self.keeps(id)).copied().map(Step::Forget);
        add.chain(put).chain(drop).chain(forget).collect()
    }

    fn keeps(&self, id: &AssociationId) -> bool {
        let is_known = |known: &BTreeSet<u32>| known.contains(&mark(id.spi.into()));
        self.associations.contains_key(id) || self.known.as_ref().is_none_or(is_known)
    }
}

impl Policy {
    /// What the kernel has one policy for.
    fn selector(&self) -> (Way, IpAddr, IpAddr, u16) {
        (self.way, self.source, self.destination, self.port)
    }
}

/// What tells a key's associations from those of keys before and after it.
fn mark(number: u64) -> u32 {
    u32::try_from(number % (1 << KEY_BITS)).expect("two bits are a small number")
}

/// The association from one machine to another under a key. Both ends derive it, and nobody without the key.
fn derived(key: &NetworkKey, source: &Machine, destination: &Machine) -> (AssociationId, CipherKey) {
    let mut context = Vec::from(PURPOSE);
    context.extend_from_slice(&key.number.to_be_bytes());
    for machine in [source, destination] {
        let address = match machine.address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        context.extend_from_slice(&address.octets());
        context.extend_from_slice(&machine.generation.to_be_bytes());
    }
    let derived = authenticated(key.key.reveal().as_bytes(), &context);
    let (cipher, rest) = derived.split_first_chunk::<20>().expect("a hash is longer");
    let spi = u32::from_be_bytes(*rest.first_chunk().expect("a hash is longer"));
    let spi = (spi >> KEY_BITS << KEY_BITS) | mark(key.number);
    let spi = if spi < SPI_MIN { spi + SPI_MIN } else { spi };
    (AssociationId { source: source.address, destination: destination.address, spi }, CipherKey(*cipher))
}

/// HMAC with SHA-256. Source: RFC 2104.
fn authenticated(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let padded = |pad: u8, text: &[u8]| -> [u8; 32] {
        let hash = Sha256::new().chain_update(block.map(|byte| byte ^ pad)).chain_update(text);
        hash.finalize().into()
    };
    padded(0x5c, &padded(0x36, text))
}

#[cfg(test)]
mod tests;
