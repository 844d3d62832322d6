//! Whom to trust in a handshake.
//!
//! In: the other side's certificates and the time. Out: trusted or not. A certificate that has run out, or is not valid
//! yet, passes here when everything else is right: the server then serves only what such a node may have, the client
//! asks the time and gives up with an error that names the difference. Never looks at what is called.

use std::sync::Arc;

use objects::{ClusterId, Timestamp};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::error::Distrust;
use crate::peer::Peer;

/// The server's view of clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

/// The client's view of servers.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    chain: Arc<WebPkiServerVerifier>,
    cluster: Option<ClusterId>,
}

/// Believes anybody: for the one question whose answer is checked against a token.
#[derive(Debug)]
pub(crate) struct TrustAll {
    provider: Arc<CryptoProvider>,
}

/// Reads a certificate, checks its swarm, and says at which time to verify its chain.
fn examine(
    certificate: &CertificateDer<'_>,
    cluster: Option<&ClusterId>,
    now: UnixTime,
) -> Result<UnixTime, Error> {
    let peer = Peer::of_der(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    if let Some(expected) = cluster.filter(|expected| **expected != peer.cluster) {
        let reason = Distrust::OtherSwarm { found: peer.cluster.to_string(), expected: expected.to_string() };
        return Err(CertificateError::Other(OtherError(Arc::new(reason))).into());
    }
    let now = Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let seconds = u64::try_from(peer.nearest_valid(now).0 / 1_000_000_000).unwrap_or(0);
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

impl ClientVerifier {
    pub(crate) fn new(
        roots: &Arc<RootCertStore>,
        cluster: ClusterId,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
            .allow_unauthenticated()
            .build()?;
        Ok(Arc::new(Self { chain, cluster }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        // A machine that is about to join has no certificate.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The chain comes first: nothing is said to a stranger about the swarm.
        let moment = examine(end_entity, None, now)?;
        let verified = self.chain.verify_client_cert(end_entity, intermediates, moment)?;
        examine(end_entity, Some(&self.cluster), now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ServerVerifier {
    pub(crate) fn new(
        roots: &Arc<RootCertStore>,
        cluster: Option<ClusterId>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, VerifierBuilderError> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build()?;
        Ok(Arc::new(Self { chain, cluster }))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let moment = examine(end_entity, None, now)?;
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, moment)?;
        examine(end_entity, self.cluster.as_ref(), now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl TrustAll {
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { provider })
    }
}

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use objects::{Nanos, NodeRole};
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;

    const YEAR: i64 = 365 * 86_400;
    const NOW: Timestamp = Timestamp::from_secs(50 * YEAR);

    fn authority() -> pki::Authority {
        pki::Authority::create(Timestamp::from_secs(40 * YEAR)).unwrap()
    }

    fn certificate(authority: &pki::Authority, cluster: &str, start: i64) -> CertificateDer<'static> {
        let identity = pki::Identity { node: "n".into(), role: NodeRole::Worker, cluster: cluster.into() };
        let start = Timestamp::from_secs(50 * YEAR + start);
        let issued = authority.issue(&identity, start, Nanos::from_secs(7_200)).unwrap();
        CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
    }

    fn roots(authority: &pki::Authority) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    #[test]
    fn a_client_is_of_this_swarm_or_none() {
        let ours = authority();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = ClientVerifier::new(&roots(&ours), "ours".into(), provider).unwrap();
        let root = CertificateDer::from_pem_slice(ours.certificate.as_bytes()).unwrap();
        for (name, shown, is_trusted) in [
            ("our node", certificate(&ours, "ours", 0), true),
            ("our node, long ago", certificate(&ours, "ours", -YEAR), true),
            ("our node, soon", certificate(&ours, "ours", YEAR), true),
            ("a node of another swarm under our root", certificate(&ours, "theirs", 0), false),
            ("a node of a swarm with our name", certificate(&authority(), "ours", 0), false),
            ("the root itself", root, false),
            ("nonsense", CertificateDer::from(vec![1, 2, 3]), false),
        ] {
            let now = UnixTime::since_unix_epoch(Nanos(NOW.0).to_std());
            let verified = verifier.verify_client_cert(&shown, &[], now);
            assert_eq!(verified.is_ok(), is_trusted, "{name}: {verified:?}");
        }
        assert!(!verifier.client_auth_mandatory());
    }
}
