//! An authority outside of the swarm: a server of the `cfssl` protocol with an `openssl` authority behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use objects::{Cluster, ExternalCa, NodeRole};
use pki::{Authority, ExternalAuthority, Identity, Issued, NodeKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{NINETY_DAYS, identity, now, openssl_ok};

/// How the server behaves.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    Honest,
    Refuses,
    SignsForAnother,
    SignsAnotherKey,
    TalksForever,
}

/// A directory with `root`, `root.key`, and a certificate of 127.0.0.1 signed by them; a server that uses them.
pub(crate) struct Outside {
    directory: tempfile::TempDir,
    address: String,
    server: JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

pub(crate) async fn outside(manner: Manner) -> Outside {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    openssl_ok(
        path,
        &format!("req -x509 -newkey {EC} -keyout root.key -out root -days 800 -subj /CN=outside"),
    );
    openssl_ok(path, &format!("req -new -newkey {EC} -keyout tls.key -out tls.csr -subj /CN=web"));
    fs::write(path.join("tls.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl_ok(path, "x509 -req -in tls.csr -CA root -CAkey root.key -days 2 -extfile tls.ext -out tls");

    let read = |name: &str| fs::read(path.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("root")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(
        vec![CertificateDer::from_pem_slice(&read("tls")).unwrap()],
        PrivateKeyDer::from_pem_slice(&read("tls.key")).unwrap(),
    );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let files = path.to_owned();
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // A client that is not trusted is sent away by the handshake.
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            answer(stream, &files, manner).await;
        }
    });
    Outside { directory, address, server }
}

async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    files: &Path,
    manner: Manner,
) {
    let mut request = Vec::new();
    let body = loop {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break body.to_owned();
        }
    };
    let reply = match serde_json::from_str(&body) {
        Ok(request) if manner == Manner::Refuses => {
            let _: Value = request;
            json!({"success": false, "result": null, "errors": [{"code": 5300, "message": "policy"}]})
                .to_string()
        }
        Ok(_) if manner == Manner::TalksForever => "x".repeat(2 << 20),
        Ok(request) => {
            let signed = sign(&request, files, manner);
            json!({"success": true, "result": {"certificate": signed}, "errors": [], "messages": []})
                .to_string()
        }
        Err(_) => String::new(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", reply.len());
    // A client that has had enough closes early.
    let _ = stream.write_all([head, reply].concat().as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn sign(request: &Value, files: &Path, manner: Manner) -> String {
    let mut csr = request["certificate_request"].as_str().unwrap().to_owned();
    if request["profile"] == "CA" {
        assert_eq!(request["extensions"][0]["id"], "2.5.29.19");
        fs::write(files.join("ca.csr"), csr).unwrap();
        let value = request["extensions"][0]["value"].as_str().unwrap();
        fs::write(
            files.join("ca.ext"),
            format!("basicConstraints=critical,DER:{value}\nsubjectKeyIdentifier=hash\n"),
        )
        .unwrap();
        return openssl_ok(files, "x509 -req -in ca.csr -CA root -CAkey root.key -days 700 -extfile ca.ext");
    }
    let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    let authority = Authority::given(&read("root"), &read("root.key")).unwrap();
    let (subject, name) = (&request["subject"], &request["subject"]["names"][0]);
    let role = if name["OU"] == "swarm-manager" { NodeRole::Manager } else { NodeRole::Worker };
    let cluster = name["O"].as_str().unwrap().into();
    let mut asked = Identity { cluster, ..identity(subject["CN"].as_str().unwrap(), role) };
    assert_eq!(request["hosts"], json!(asked.dns_names()));
    match manner {
        Manner::SignsForAnother => asked.node = "another".into(),
        Manner::SignsAnotherKey => csr = NodeKey::generate().unwrap().request().unwrap(),
        _ => {}
    }
    authority.certify(&csr, &asked, now(), NINETY_DAYS).unwrap()
}

impl Outside {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> String {
        fs::read_to_string(self.file("root")).unwrap()
    }

    /// Its root with its key.
    pub(crate) fn authority(&self) -> Authority {
        let key = fs::read_to_string(self.file("root.key")).unwrap();
        Authority::given(&self.root(), &key).unwrap()
    }

    pub(crate) fn manager(&self) -> Issued {
        self.authority().issue(&identity("manager", NodeRole::Manager), now(), NINETY_DAYS).unwrap()
    }

    pub(crate) fn client(&self) -> ExternalAuthority {
        let manager = self.manager();
        ExternalAuthority::new(&manager.certificate, &manager.key).unwrap()
    }

    /// A swarm whose present root has no key and is known to this authority.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.spec.ca_config.node_cert_expiry = NINETY_DAYS;
        cluster.spec.ca_config.external_cas =
            vec![ExternalCa { protocol: "cfssl".into(), url: self.url(), ..ExternalCa::default() }];
        cluster.internal.ca_certificate = self.root();
        cluster
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/api/v1/cfssl/sign", self.address)
    }
}
