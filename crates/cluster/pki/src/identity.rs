//! Who a node's certificate says it is.
//!
//! In: a certificate. Out: node, role and swarm. Never asks whether the certificate is to be trusted.

use objects::{ClusterId, NodeId, NodeRole};

use crate::authority::ROOT_NAME;
use crate::certificate::{self, InvalidCertificate};

/// What a node's certificate says about its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The common name (CN).
    pub node: NodeId,
    /// The organisational unit (OU).
    pub role: NodeRole,
    /// The organisation (O): the swarm it belongs to.
    pub cluster: ClusterId,
}

/// The OU of a role's certificates, which is also a DNS name in them.
/// Source: swarmkit, `ca/config.go` (`ManagerRole`, `WorkerRole`).
#[must_use]
pub fn unit(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => "swarm-manager",
        NodeRole::Worker => "swarm-worker",
    }
}

impl Identity {
    /// The names that others may call it by in a handshake.
    /// Source: swarmkit, `ca/certificates.go` (`PrepareCSR`).
    #[must_use]
    pub fn dns_names(&self) -> Vec<String> {
        let mut names = vec![unit(self.role).to_owned(), self.node.to_string()];
        if self.role == NodeRole::Manager {
            names.push(ROOT_NAME.into());
        }
        names
    }

    /// Of the first certificate of a PEM text.
    pub fn of(pem: &str) -> Result<Self, InvalidCertificate> {
        Self::of_der(&certificate::first_der(pem)?)
    }

    /// Of a certificate as a handshake has it.
    pub fn of_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let certificate = certificate::parse(der)?;
        let subject = certificate.subject();
        let one = |mut found: Vec<String>| match found.len() {
            // Two names would leave it to the reader which of them counts.
            1 => found.pop().ok_or(InvalidCertificate),
            _ => Err(InvalidCertificate),
        };
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).map_err(|_| InvalidCertificate)
        };
        let node = one(subject.iter_common_name().map(text).collect::<Result<_, _>>()?)?;
        let role = one(subject.iter_organizational_unit().map(text).collect::<Result<_, _>>()?)?;
        let cluster = one(subject.iter_organization().map(text).collect::<Result<_, _>>()?)?;
        let role = [NodeRole::Manager, NodeRole::Worker]
            .into_iter()
            .find(|known| unit(*known) == role)
            .ok_or(InvalidCertificate)?;
        Ok(Self { node: node.into(), role, cluster: cluster.into() })
    }
}
