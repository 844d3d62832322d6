//! Encryption between machines in the kernel: associations and policies of IPsec in the machine's network namespace.
//!
//! In: what the encrypted networks need, the keys of the swarm. Out: the kernel as planned, changed by difference; what an
//! earlier daemon left is found by its mark, and nobody else's is touched. Never decides what is encrypted, and never keeps a
//! key anywhere but in the kernel.
//!
//! A daemon that starts knows no key before a manager tells it: until then what is in the kernel stays, and serves.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use netlink::NetlinkError;
use netlink::xfrm::{self, AeadKey, Association, XfrmBatch, XfrmSocket};
use netplan::encryption::{
    AssociationId, EncryptionNeeds, EncryptionPlan, Found, Policy, REQUEST_ID, REQUEST_ID_OF_NONE, Step, Way,
};
use objects::NodeId;
use tokio::sync::watch;
use wire::network::{NetworkKey, NetworkView, Networks};

use crate::NetworkError;

/// Of the association by which the kernel is tried out. chosen: addresses for documentation (RFC 5737).
const TRIED_ADDRESSES: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const TRIED_SPI: u32 = 0x100;

/// What the kernel does for encrypted networks.
#[derive(Debug)]
pub struct Encryption {
    /// Or why the kernel cannot.
    socket: Result<XfrmSocket, Arc<NetlinkError>>,
    /// Names what the kernel holds; zero: it cannot encrypt.
    generation: watch::Sender<u64>,
    /// Where the generation is kept, as long as what it names.
    file: PathBuf,
    /// Of encrypted networks, the oldest first; `None` before a manager has told them.
    keys: Option<Vec<NetworkKey>>,
    /// Whether networks, keys or the kernel may not be as they were.
    is_doubtful: bool,
    /// What was applied last; `None` when the kernel has to be looked at.
    applied: Option<Applied>,
    /// Associations that this machine sends with, and that were there.
    sending: BTreeSet<AssociationId>,
}

#[derive(Debug, PartialEq)]
struct Applied {
    needs: EncryptionNeeds,
    keys: Option<Vec<NetworkKey>>,
}

impl Encryption {
    /// Tries out what the kernel can, and finds what an earlier daemon left. `file` ends with the machine's uptime. To be called
    /// in the machine's network namespace.
    pub fn open(file: PathBuf) -> Self {
        let socket = able_socket().map_err(Arc::new);
        if let Err(error) = &socket {
            let error: &dyn std::error::Error = error.as_ref();
            tracing::info!(
                error,
                "no task on an encrypted network can run here: the kernel has no ESP with AES-GCM"
            );
        }
        let generation = watch::Sender::new(0);
        let (keys, applied, sending) = (None, None, BTreeSet::new());
        let mut encryption = Self { socket, generation, file, keys, is_doubtful: true, applied, sending };
        encryption.begin();
        encryption
    }

    /// Names what the kernel holds, now and when that changes; zero: it cannot encrypt.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Why tasks on this network cannot run here, if it is encrypted and they cannot.
    pub fn check(&self, view: &NetworkView) -> Result<(), NetworkError> {
        match &self.socket {
            Err(source) if view.encrypted => {
                Err(NetworkError::NoEncryption { network: view.name.clone(), source: Arc::clone(source) })
            }
            _ => Ok(()),
        }
    }

    /// Takes in the keys as a manager said them, all of them, the oldest first.
    pub fn take_in_keys(&mut self, keys: Vec<NetworkKey>) {
        self.keys = Some(keys);
        self.is_doubtful = true;
    }

    /// Has the next [`Encryption::apply`] look at the networks.
    pub fn follow(&mut self) {
        self.is_doubtful = true;
    }

    /// Has the next [`Encryption::apply`] look at the kernel as well: for a timer, because nothing tells of its changes.
    pub fn doubt(&mut self) {
        self.applied = None;
        self.is_doubtful = true;
    }

    /// Whether there may be something to do.
    pub fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Brings the kernel to what these networks of a node need. All of it is tried; the first failure is told.
    pub fn apply(&mut self, networks: &Networks, node: &NodeId) -> Result<(), NetworkError> {
        if self.is_doubtful {
            self.apply_needs(EncryptionNeeds::of(networks, node))?;
            self.is_doubtful = false;
        }
        Ok(())
    }

    fn apply_needs(&mut self, needs: EncryptionNeeds) -> Result<(), NetworkError> {
        let Ok(socket) = &mut self.socket else { return Ok(()) };
        let wanted = Applied { needs, keys: self.keys.clone() };
        if self.applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.applied = None;
        let found = find(socket)?;
        if !self.sending.is_subset(&found.associations) {
            tracing::warn!("somebody removed what encrypts between machines: its keys are derived anew");
            self.begin_anew();
        }
        let plan = wanted.needs.plan(*self.generation.borrow(), wanted.keys.as_deref());
        self.carry_out(&plan, &found)?;
        self.applied = Some(wanted);
        Ok(())
    }

    /// Removes everything of ours.
    pub fn remove_all(&mut self) -> Result<(), NetworkError> {
        let Ok(socket) = &mut self.socket else { return Ok(()) };
        self.applied = None;
        let found = find(socket)?;
        self.carry_out(&EncryptionPlan::nothing(), &found)
    }

    fn carry_out(&mut self, plan: &EncryptionPlan, found: &Found) -> Result<(), NetworkError> {
        let Ok(socket) = &mut self.socket else { return Ok(()) };
        let mut batch = XfrmBatch::new();
        for step in plan.steps(found) {
            match step {
                Step::Add(id, key) => batch.add_association(&association(&id, AeadKey(key.0))),
                Step::Put(policy) => batch.put_policy(&to_kernel(&policy)),
                Step::Drop(policy) => batch.delete_policy(&to_kernel(&policy)),
                Step::Forget(id) => batch.delete_association(&association(&id, AeadKey([0; 20])).id()),
            }
        }
        let outcome = socket.commit(batch);
        self.sending.clear();
        outcome?;
        self.sending.clone_from(&plan.sending);
        Ok(())
    }

    /// Goes on with the generation of before, as long as the kernel holds anything of it.
    fn begin(&mut self) {
        let Ok(socket) = &mut self.socket else { return };
        let is_held = find(socket).is_ok_and(|found| !found.associations.is_empty());
        let kept = fs::read_to_string(&self.file).ok().and_then(|text| text.trim().parse().ok());
        match kept.filter(|kept| is_held && *kept != 0) {
            Some(kept) => drop(self.generation.send_replace(kept)),
            None => self.begin_anew(),
        }
    }

    /// Packets are counted from one again: the others have to know, and not take them for old ones.
    fn begin_anew(&mut self) {
        self.sending.clear();
        let mut bytes = [0; 8];
        let drawn = getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()));
        let generation = u64::from_ne_bytes(bytes).max(1);
        if let Err(error) = drawn.and_then(|()| fs::write(&self.file, generation.to_string())) {
            // A daemon that cannot read it draws another one.
            tracing::warn!(path = %self.file.display(), %error, "the generation of this node's encryption is not kept");
        }
        self.generation.send_replace(generation);
    }
}

/// A socket of a kernel that has ESP with AES-GCM: one that takes such an association. Makes the kernel load its modules.
fn able_socket() -> Result<XfrmSocket, NetlinkError> {
    let mut socket = XfrmSocket::open()?;
    let [source, destination] = TRIED_ADDRESSES.map(Into::into);
    let tried = AssociationId { source, destination, spi: TRIED_SPI };
    let tried = Association { request_id: REQUEST_ID_OF_NONE, ..association(&tried, AeadKey([1; 20])) };
    socket.add_association(&tried)?;
    socket.delete_association(&tried.id())?;
    Ok(socket)
}

/// What the kernel has of ours.
fn find(socket: &mut XfrmSocket) -> Result<Found, NetworkError> {
    let associations = socket.associations()?.into_iter().filter(|found| found.request_id == REQUEST_ID);
    let policies = socket.policies()?.into_iter();
    let policies = policies.filter(|found| [REQUEST_ID, REQUEST_ID_OF_NONE].contains(&found.request_id));
    Ok(Found {
        associations: associations
            .map(|found| AssociationId {
                source: found.source,
                destination: found.destination,
                spi: found.spi,
            })
            .collect(),
        policies: policies.map(|found| of_kernel(&found)).collect(),
    })
}

fn association(id: &AssociationId, key: AeadKey) -> Association {
    let AssociationId { source, destination, spi } = *id;
    Association { source, destination, spi, request_id: REQUEST_ID, key }
}

fn to_kernel(policy: &Policy) -> xfrm::Policy {
    let Policy { source, destination, port, request_id, spi, way } = *policy;
    let way = match way {
        Way::In => xfrm::Way::In,
        Way::Out => xfrm::Way::Out,
    };
    xfrm::Policy { way, source, destination, port, request_id, spi }
}

fn of_kernel(policy: &xfrm::Policy) -> Policy {
    let xfrm::Policy { source, destination, port, request_id, spi, way } = *policy;
    let way = match way {
        xfrm::Way::In => Way::In,
        xfrm::Way::Out => Way::Out,
    };
    Policy { way, source, destination, port, request_id, spi }
}
