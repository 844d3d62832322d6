//! `swarm ca`.

use crate::client::Client;
use crate::commands::swarm::settings::Certificates;
use crate::output::{note, print};
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// Pause between two looks at a rotation. Source: docker/cli, `swarm/progress/root_rotation.go` (200 ms).
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `swarm ca [OPTIONS]`
#[derive(Debug, Args)]
pub struct Ca {
    /// Path to the PEM-formatted root CA certificate to use for the new cluster
    #[arg(long, value_name = "pem-file", value_parser = read)]
    ca_cert: Option<String>,
    /// Path to the PEM-formatted root CA key to use for the new cluster
    #[arg(long, value_name = "pem-file", value_parser = read)]
    ca_key: Option<String>,
    #[command(flatten)]
    certificates: Certificates,
    /// Exit immediately instead of waiting for the root rotation to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Rotate the swarm CA - if no certificate or key are provided, new ones will be generated
    #[arg(long)]
    rotate: bool,
}

impl Ca {
    /// Prints the root certificate, after replacing it if asked to.
    pub async fn run(self, client: &Client) -> Outcome {
        let swarm = client.get("/swarm").value().await?;
        if !self.rotate {
            self.refuse_without_rotate()?;
            print(swarm["TLSInfo"]["TrustRoot"].as_str().unwrap_or_default());
            return Ok(());
        }
        let mut spec = swarm["Spec"].clone();
        self.certificates.apply(&mut spec);
        spec["CAConfig"]["SigningCACert"] = json!(self.ca_cert.as_deref().unwrap_or_default());
        spec["CAConfig"]["SigningCAKey"] = json!(self.ca_key.as_deref().unwrap_or_default());
        let rotations = spec["CAConfig"]["ForceRotate"].as_u64().unwrap_or_default();
        spec["CAConfig"]["ForceRotate"] = json!(rotations + 1);
        let update = client.post("/swarm/update").query("version", &swarm["Version"]["Index"]);
        update.json(&spec).send().await?;
        if self.detach { Ok(()) } else { self.follow(client).await }
    }

    fn refuse_without_rotate(&self) -> Outcome {
        let flags = [
            ("ca-cert", self.ca_cert.is_some()),
            ("ca-key", self.ca_key.is_some()),
            ("cert-expiry", self.certificates.cert_expiry.is_some()),
            ("external-ca", !self.certificates.external_ca.is_empty()),
        ];
        match flags.into_iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                Err(CliError::new(format!("`--{flag}` flag requires the `--rotate` flag to update the CA")))
            }
            None => Ok(()),
        }
    }

    /// Shows how many nodes have changed over, until all have.
    async fn follow(&self, client: &Client) -> Outcome {
        let mut shown = String::new();
        loop {
            let swarm = client.get("/swarm").value().await?;
            let nodes = client.get("/nodes").value().await?;
            let progress = progress(&swarm["TLSInfo"], nodes.as_array().map_or(&[], Vec::as_slice));
            if progress != shown && !self.quiet {
                note(&progress);
                shown = progress;
            }
            if swarm["RootRotationInProgress"] != true {
                print(swarm["TLSInfo"]["TrustRoot"].as_str().unwrap_or_default());
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What is in a file.
fn read(path: &str) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file("open", path, &error))
}

fn progress(wanted: &Value, nodes: &[Value]) -> String {
    let count = |same: &dyn Fn(&Value) -> bool| {
        nodes.iter().filter(|node| same(&node["Description"]["TLSInfo"])).count()
    };
    let certificates = count(&|has| {
        has["CertIssuerPublicKey"] == wanted["CertIssuerPublicKey"]
            && has["CertIssuerSubject"] == wanted["CertIssuerSubject"]
    });
    let roots = count(&|has| has["TrustRoot"] == wanted["TrustRoot"]);
    let all = nodes.len();
    format!(
        "rotated TLS certificates:  {certificates}/{all} nodes\nrotated CA certificates:   {roots}/{all} nodes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_who_has_what() {
        let wanted = json!({"TrustRoot": "new", "CertIssuerSubject": "s", "CertIssuerPublicKey": "k2"});
        let node = |root: &str, key: &str| {
            json!({"Description": {"TLSInfo": {
                "TrustRoot": root, "CertIssuerSubject": "s", "CertIssuerPublicKey": key,
            }}})
        };
        let nodes = [node("old", "k1"), node("old", "k2"), node("new", "k2")];
        let expect = "rotated TLS certificates:  2/3 nodes\nrotated CA certificates:   1/3 nodes";
        assert_eq!(progress(&wanted, &nodes), expect);
    }
}
