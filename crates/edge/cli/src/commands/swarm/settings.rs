//! Settings of the swarm, as `swarm init` and `swarm update` take them, and `swarm update` itself.

use crate::client::Client;
use crate::commands::read;
use crate::commands::swarm::unlock::print_unlock_key;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::{Value, json};

/// What both commands take; a setting that is left out keeps its value.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Task history retention limit (default 5)
    #[arg(long, allow_hyphen_values = true, value_name = "int")]
    task_history_limit: Option<i64>,
    #[command(flatten)]
    certificates: Certificates,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "duration", allow_hyphen_values = true, value_parser = read::duration)]
    dispatcher_heartbeat: Option<i64>,
    /// Number of additional Raft snapshots to retain
    #[arg(long, value_name = "uint")]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots (default 10000)
    #[arg(long, value_name = "uint")]
    snapshot_interval: Option<u64>,
}

/// What `swarm ca` takes as well.
#[derive(Debug, Args)]
pub(super) struct Certificates {
    /// Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)
    #[arg(long, value_name = "duration", allow_hyphen_values = true, value_parser = read::duration)]
    pub(super) cert_expiry: Option<i64>,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long, value_name = "external-ca", value_parser = external_ca)]
    pub(super) external_ca: Vec<Value>,
}

/// `swarm update [OPTIONS]`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Update {
    #[command(flatten)]
    settings: Settings,
    /// Change manager autolocking setting (true|false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "bool")]
    autolock: Option<bool>,
}

impl Settings {
    /// The values that a new swarm gets where nothing was said. Source: docker/cli `swarm/opts.go`.
    #[must_use]
    pub(super) fn or_defaults(mut self) -> Self {
        self.task_history_limit.get_or_insert(5);
        self.certificates.cert_expiry.get_or_insert(objects::Nanos::from_secs(90 * 86_400).0);
        self.dispatcher_heartbeat.get_or_insert(objects::Nanos::from_secs(5).0);
        self.max_snapshots.get_or_insert(0);
        self.snapshot_interval.get_or_insert(10_000);
        self
    }

    /// Writes what was said into a swarm's spec.
    pub(super) fn apply(&self, spec: &mut Value) {
        if let Some(limit) = self.task_history_limit {
            spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(limit);
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec["Dispatcher"]["HeartbeatPeriod"] = json!(period);
        }
        if let Some(count) = self.max_snapshots {
            spec["Raft"]["KeepOldSnapshots"] = json!(count);
        }
        if let Some(entries) = self.snapshot_interval {
            spec["Raft"]["SnapshotInterval"] = json!(entries);
        }
        self.certificates.apply(spec);
    }
}

impl Certificates {
    /// As [`Settings::apply`].
    pub(super) fn apply(&self, spec: &mut Value) {
        if let Some(expiry) = self.cert_expiry {
            spec["CAConfig"]["NodeCertExpiry"] = json!(expiry);
        }
        if !self.external_ca.is_empty() {
            spec["CAConfig"]["ExternalCAs"] = Value::Array(self.external_ca.clone());
        }
    }
}

impl Update {
    /// Changes what was asked for and nothing else.
    pub async fn run(self, client: &Client) -> Outcome {
        let swarm = client.get("/swarm").value().await?;
        let mut spec = swarm["Spec"].clone();
        let was_locking = spec["EncryptionConfig"]["AutoLockManagers"] == true;
        self.settings.apply(&mut spec);
        if let Some(autolock) = self.autolock {
            spec["EncryptionConfig"]["AutoLockManagers"] = json!(autolock);
        }
        let call = client.post("/swarm/update").query("version", &swarm["Version"]["Index"]);
        call.json(&spec).send().await?;
        line("Swarm updated.");
        if self.autolock == Some(true) && !was_locking {
            print_unlock_key(client).await?;
        }
        Ok(())
    }
}

/// What a node may be at first. Source of the words: docker/cli, `swarm/init.go`.
pub(super) fn availability(text: &str) -> Result<String, CliError> {
    let word = text.to_lowercase();
    if ["active", "pause", "drain"].contains(&word.as_str()) {
        return Ok(word);
    }
    Err(CliError::new(format!("invalid availability {text:?}, only active, pause and drain are supported")))
}

/// `protocol=cfssl,url=https://…,cacert=FILE,KEY=VALUE`.
fn external_ca(text: &str) -> Result<Value, CliError> {
    let (mut authority, mut options) = (json!({}), json!({}));
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(CliError::new(format!("invalid field '{field}' must be a key=value pair")));
        };
        match key.trim().to_lowercase().as_str() {
            "protocol" if value.eq_ignore_ascii_case("cfssl") => authority["Protocol"] = json!("cfssl"),
            "protocol" => return Err(CliError::new(format!("unrecognized external CA protocol {value}"))),
            "url" => authority["URL"] = json!(value),
            "cacert" => {
                let pem = std::fs::read_to_string(value);
                let pem = pem.map_err(|error| CliError::file("open", value, &error))?;
                authority["CACert"] = json!(pem);
            }
            _ => options[key] = json!(value),
        }
    }
    if authority["Protocol"].is_null() {
        return Err(CliError::new("the external-ca option needs a protocol= parameter"));
    }
    if authority["URL"].is_null() {
        return Err(CliError::new("the external-ca option needs a url= parameter"));
    }
    authority["Options"] = options;
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_keeps_its_value() {
        let settings = Settings {
            task_history_limit: Some(2),
            certificates: Certificates { cert_expiry: None, external_ca: Vec::new() },
            dispatcher_heartbeat: None,
            max_snapshots: None,
            snapshot_interval: None,
        };
        let mut spec = json!({"Raft": {"SnapshotInterval": 7}, "Labels": {"a": "b"}});
        settings.apply(&mut spec);
        let expect = json!({
            "Raft": {"SnapshotInterval": 7}, "Labels": {"a": "b"},
            "Orchestration": {"TaskHistoryRetentionLimit": 2},
        });
        assert_eq!(spec, expect);
    }

    #[test]
    fn an_external_authority_needs_protocol_and_url() {
        let read = external_ca("protocol=cfssl,url=https://ca:8888,zone=a").expect("it is complete");
        assert_eq!(read, json!({"Protocol": "cfssl", "URL": "https://ca:8888", "Options": {"zone": "a"}}));
        for (text, error) in [
            ("url=https://ca", "needs a protocol="),
            ("protocol=cfssl", "needs a url="),
            ("protocol=acme,url=x", "unrecognized external CA protocol"),
            ("cfssl", "must be a key=value pair"),
        ] {
            let found = external_ca(text).expect_err(text).to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
