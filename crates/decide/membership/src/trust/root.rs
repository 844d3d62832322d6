//! Decides what a change of the cluster's settings means for its root.
//!
//! In: the cluster, the settings that are wanted, what a given root certificate says. Out: a plan, of which the shell does
//! what needs keys or a network, or Docker's refusal. Source of rules and texts: swarmkit,
//! `manager/controlapi/ca_rotation.go`.

use std::fmt;

use objects::{CaConfig, Cluster, Nanos, Timestamp, TlsInfo};

/// What a root certificate must have left. Source: swarmkit, `manager/controlapi/ca_rotation.go` (`minRootExpiration`).
const LEAST_LEFT: Nanos = Nanos::from_secs(366 * 86_400);

/// The only protocol of authorities outside. Source: swarmkit, `api/types.proto` (`ExternalCA.CAProtocol`).
const PROTOCOL: &str = "cfssl";

/// A root certificate and what it says, as the shell read it.
#[derive(Clone, PartialEq)]
pub struct KnownRoot {
    /// Its PEM in the usual form.
    pub certificate: String,
    /// Its key, PEM; empty when an authority outside has it.
    pub key: String,
    /// Itself as an issuer; its `trust_root` is `certificate`.
    pub tls_info: TlsInfo,
    /// Until when it is valid.
    pub valid_until: Timestamp,
}

/// Why settings of the root are refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TrustError {
    /// A key without the certificate it belongs to.
    #[error("if a signing CA key is provided, the signing CA cert must also be provided")]
    KeyAlone,
    /// A root that would have to be replaced soon.
    #[error("CA certificate expires too soon")]
    ExpiresTooSoon,
    /// The swarm has neither the present root's key nor the next one's.
    #[error("rotating from one external CA to a different external CA is not supported")]
    ExternalToExternal,
    /// Nobody would sign.
    #[error(
        "there must be at least one valid, reachable external CA corresponding to the {0} CA certificate"
    )]
    NoExternal(ExternalRoot),
    /// An authority outside that speaks something else. Source: moby, `daemon/cluster/convert/swarm.go`.
    #[error("invalid protocol: \"{0}\"")]
    Protocol(String),
}

/// Which root an authority outside must sign for, in the words of the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalRoot {
    /// The one the swarm has.
    Current,
    /// The one it is changing to.
    Next,
    /// The one that is asked for.
    Desired,
}

/// What a change of settings means for the root.
#[derive(Debug, Clone, PartialEq)]
pub struct RootPlan {
    /// What becomes of it.
    pub change: RootChange,
    /// Root (PEM) for which an authority outside must answer before anything is written, and what to call it in
    /// [`TrustError::NoExternal`]; `None` when the swarm signs itself.
    pub must_answer: Option<(ExternalRoot, String)>,
}

/// What becomes of the root.
#[derive(Debug, Clone, PartialEq)]
pub enum RootChange {
    /// Nothing.
    Keep,
    /// The present root stays, or comes back when it was being replaced; its `key` is this one's from now on.
    Settle(KnownRoot),
    /// The change under way goes on; the next root's `key` is this one's from now on.
    GoOn(KnownRoot),
    /// A new root.
    Begin {
        /// The one given by a user; `None`: one is to be made.
        given: Option<KnownRoot>,
        /// Who cross-signs it.
        signer: CrossSigner,
    },
}

/// Who signs the new root in the name of the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossSigner {
    /// The swarm, which has the present root's key.
    Swarm,
    /// The authority outside that has it.
    External,
}

/// A root that the swarm is to change to, with everything made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRoot {
    /// The root.
    pub root: KnownRoot,
    /// Its name and key, signed by the present root, PEM.
    pub cross_signed: String,
}

impl fmt::Debug for KnownRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        let key = if self.key.is_empty() { "" } else { "…" };
        let mut shown = f.debug_struct("KnownRoot");
        shown.field("certificate", &self.certificate).field("key", &key);
        shown.field("tls_info", &self.tls_info).field("valid_until", &self.valid_until).finish()
    }
}

impl fmt::Display for ExternalRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Desired => "desired",
        })
    }
}

/// What the wanted settings mean for the root; `given` is what their `signing_ca_cert` and key say, when they have one.
pub fn plan(
    cluster: &Cluster,
    wanted: &CaConfig,
    given: Option<KnownRoot>,
    now: Timestamp,
) -> Result<RootPlan, TrustError> {
    if let Some(other) = wanted.external_cas.iter().find(|known| !is_known_protocol(&known.protocol)) {
        return Err(TrustError::Protocol(other.protocol.clone()));
    }
    match given {
        Some(given) => with_given(cluster, given, now),
        None if !wanted.signing_ca_key.is_empty() => Err(TrustError::KeyAlone),
        None if wanted.force_rotate != cluster.internal.last_forced_rotation => begin(cluster, None),
        None => Ok(RootPlan { change: RootChange::Keep, must_answer: signed_outside(cluster) }),
    }
}

fn is_known_protocol(name: &str) -> bool {
    name.eq_ignore_ascii_case(PROTOCOL)
}

/// The root that only an authority outside can sign for at present.
fn signed_outside(cluster: &Cluster) -> Option<(ExternalRoot, String)> {
    let internal = &cluster.internal;
    match &internal.root_rotation {
        Some(next) => next.ca_key.is_empty().then(|| (ExternalRoot::Next, next.ca_certificate.clone())),
        None => internal.ca_key.is_empty().then(|| (ExternalRoot::Current, internal.ca_certificate.clone())),
    }
}

fn with_given(cluster: &Cluster, given: KnownRoot, now: Timestamp) -> Result<RootPlan, TrustError> {
    if given.valid_until < now + LEAST_LEFT {
        return Err(TrustError::ExpiresTooSoon);
    }
    let must_answer = given.key.is_empty().then(|| (ExternalRoot::Desired, given.certificate.clone()));
    let internal = &cluster.internal;
    if given.certificate == internal.ca_certificate {
        return Ok(RootPlan { change: RootChange::Settle(given), must_answer });
    }
    if internal.root_rotation.as_ref().is_some_and(|next| next.ca_certificate == given.certificate) {
        return Ok(RootPlan { change: RootChange::GoOn(given), must_answer });
    }
    Ok(RootPlan { must_answer, ..begin(cluster, Some(given))? })
}

fn begin(cluster: &Cluster, given: Option<KnownRoot>) -> Result<RootPlan, TrustError> {
    // A change under way is given up: the root that everybody trusts is the one that must cross-sign.
    let signer = match cluster.internal.ca_key.is_empty() {
        false => CrossSigner::Swarm,
        true if given.as_ref().is_some_and(|root| root.key.is_empty()) => {
            return Err(TrustError::ExternalToExternal);
        }
        true => CrossSigner::External,
    };
    Ok(RootPlan { change: RootChange::Begin { given, signer }, must_answer: None })
}
