//! TLS on TCP sockets, with the client's certificate asked for when it is to be verified.
//!
//! In: PEM files as dockerd's `--tlscert`, `--tlskey` and `--tlscacert` name them. Out: an acceptor. Who holds a
//! certificate signed by the clients' authority may do everything; there are no lesser rights.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};

/// The files of `--tls` and `--tlsverify`.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate and its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signs clients' certificates; `None` lets every client in (`--tls` without `--tlsverify`).
    pub clients_ca: Option<PathBuf>,
}

/// Why the files make no server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no such thing.
    #[error("read TLS file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The authority is not usable.
    #[error("use the clients' authority")]
    Authority(#[source] VerifierBuilderError),
    /// Certificate and key do not fit, or are damaged.
    #[error("use the server's certificate")]
    Certificate(#[source] Error),
}

/// Reads the files and makes a server of them.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::Read { path: files.key.clone(), source })?;
    let builder = ServerConfig::builder();
    let builder = match &files.clients_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(TlsError::Certificate)?;
            }
            let verifier =
                WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(TlsError::Authority)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&files.certificate)?;
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let all = all.map_err(failed)?;
    if all.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(all) }
}

/// Why a handshake came to nothing, as an error of the connection.
pub(crate) fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
}
