//! This node's certificate and what it trusts: on disk, on its connections, and for whoever must know of a change.
//!
//! In: the certificates directory, answers of managers. Out: files, then the identity that new connections have. The
//! node's key stays the same for as long as it is in the swarm.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use objects::{NodeRole, Timestamp, TlsInfo};
use pki::{CertificateFacts, NodeFiles, NodeKey};
use tokio::sync::watch;
use wire::join::Issued;

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("read this node's certificate")]
    Unreadable(#[from] pki::InvalidCertificate),
    #[error("the certificate is not for this node's key")]
    OtherKey,
    #[error("the certificate is for node {node}, not for this one")]
    OtherNode { node: objects::NodeId },
    #[error("this node's certificate is not of the root that it trusts")]
    Untrusted(#[source] pki::Untrusted),
    #[error("keep this node's certificate")]
    Save(#[from] pki::SaveError),
    #[error("use this node's certificate")]
    Use(#[from] rpc::InvalidCredentials),
    #[error("make a certificate request")]
    Request(#[source] pki::PkiError),
}

/// A certificate and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) files: NodeFiles,
    pub(crate) identity: pki::Identity,
    pub(crate) facts: CertificateFacts,
}

impl Certified {
    pub(crate) fn read(files: NodeFiles) -> Result<Self, CredentialsError> {
        let (identity, facts) = (pki::Identity::of(&files.chain)?, pki::facts(&files.chain)?);
        Ok(Self { files, identity, facts })
    }

    /// What the API shows of it.
    pub(crate) fn tls_info(&self) -> TlsInfo {
        let roots = &self.files.roots;
        pki::tls_info(roots, &self.files.chain)
            .unwrap_or_else(|_| TlsInfo { trust_root: roots.clone(), ..TlsInfo::default() })
    }

    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.facts.valid_until < now
    }
}

/// This node's certificate. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    key: NodeKey,
    tls: rpc::Tls,
    now: watch::Sender<Certified>,
    shown: watch::Sender<manager::Credentials>,
    /// Held while the files are replaced.
    writing: Mutex<()>,
}

impl Credentials {
    /// Of a key and a certificate that are on disk in `directory`.
    pub(crate) fn new(directory: PathBuf, key: NodeKey, files: NodeFiles) -> Result<Self, CredentialsError> {
        let certified = Certified::read(files)?;
        if !key.is_certified_by(&certified.files.chain) {
            return Err(CredentialsError::OtherKey);
        }
        let tls = rpc::Tls::new(&shown_by(&key, &certified.files))?;
        let chain = certified.files.chain.clone();
        let shown = watch::Sender::new(manager::Credentials { chain, key: key.clone() });
        let now = watch::Sender::new(certified);
        Ok(Self { inner: Arc::new(Inner { directory, key, tls, now, shown, writing: Mutex::default() }) })
    }

    /// For connections; follows every change.
    pub(crate) fn tls(&self) -> rpc::Tls {
        self.inner.tls.clone()
    }

    /// As it is at this moment.
    pub(crate) fn certified(&self) -> Certified {
        self.inner.now.borrow().clone()
    }

    /// What this node may do.
    pub(crate) fn role(&self) -> NodeRole {
        self.inner.now.borrow().identity.role
    }

    /// Follows the certificate.
    pub(crate) fn follow(&self) -> watch::Receiver<Certified> {
        self.inner.now.subscribe()
    }

    /// What this node shows to an authority outside of the swarm, as it is at any time.
    pub(crate) fn shown(&self) -> watch::Receiver<manager::Credentials> {
        self.inner.shown.subscribe()
    }

    /// A request for another certificate, PEM.
    pub(crate) fn request(&self) -> Result<String, CredentialsError> {
        self.inner.key.request().map_err(CredentialsError::Request)
    }

    /// Takes a new certificate; it is on disk and on new connections when this returns.
    pub(crate) fn take(&self, issued: &Issued, now: Timestamp) -> Result<(), CredentialsError> {
        if !self.inner.key.is_certified_by(&issued.certificate) {
            return Err(CredentialsError::OtherKey);
        }
        let known = self.certified();
        let roots = if issued.root.is_empty() { known.files.roots } else { issued.root.clone() };
        let identity = pki::verify(&issued.certificate, &roots, now).map_err(CredentialsError::Untrusted)?;
        if (&identity.node, &identity.cluster) != (&known.identity.node, &known.identity.cluster) {
            return Err(CredentialsError::OtherNode { node: identity.node });
        }
        self.replace(|files| *files = NodeFiles { chain: issued.certificate.clone(), roots })
    }

    /// Trusts these roots from now on (PEM); what is trusted already costs nothing.
    pub(crate) fn trust(&self, roots: &str) -> Result<(), CredentialsError> {
        if roots.is_empty() || self.inner.now.borrow().files.roots == roots {
            return Ok(());
        }
        self.replace(|files| files.roots = roots.to_owned())
    }

    fn replace(&self, change: impl FnOnce(&mut NodeFiles)) -> Result<(), CredentialsError> {
        let _turn = self.inner.writing.lock().expect("nothing panics while it holds this lock");
        let mut files = self.certified().files;
        change(&mut files);
        let certified = Certified::read(files)?;
        certified.files.save(&self.inner.directory)?;
        self.inner.tls.replace(&shown_by(&self.inner.key, &certified.files))?;
        self.inner.shown.send_modify(|shown| shown.chain.clone_from(&certified.files.chain));
        self.inner.now.send_replace(certified);
        Ok(())
    }
}

fn shown_by(key: &NodeKey, files: &NodeFiles) -> rpc::Credentials {
    rpc::Credentials {
        certificate: files.chain.clone(),
        key: key.pem().to_owned(),
        roots: files.roots.clone(),
    }
}
