//! What is remembered of a container on disk.

use std::collections::BTreeMap;

use docker::{ContainerConfig, EndpointSettings, HostConfig};
use lifecycle::health::Health;
use lifecycle::restart::{Backoff, Policy};
use objects::Timestamp;
use serde::{Deserialize, Serialize};

use super::mounts::MountRecord;
use crate::state::Noun;
use crate::watch::Status;

/// A container as it was created, and how its last run went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Without slash.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// `sha256:…` of the image it was created from.
    pub(crate) image_id: String,
    /// With the image's settings merged in.
    pub(crate) config: ContainerConfig,
    /// With defaults filled in, as inspect shows it.
    pub(crate) host_config: HostConfig,
    /// The networks it joins and what was asked for there.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    pub(crate) mounts: Vec<MountRecord>,
    /// Set before the first thing of it is taken away: whatever finds it so goes on removing.
    #[serde(default)]
    pub(crate) removing: bool,
    /// Whether removing takes its anonymous volumes along.
    #[serde(default)]
    pub(crate) removing_volumes: bool,
    pub(crate) run: Run,
}

/// The present or last run of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) pid: Option<i32>,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    /// In which life of the machine it was started; see `machine.rs`.
    #[serde(default)]
    pub(crate) life: String,
    /// Whether it ran when that life ended.
    #[serde(default)]
    pub(crate) went_with_machine: bool,
    /// Whether somebody asked for its end since its last start.
    pub(crate) stopped_by_hand: bool,
    /// When a stop that is under way kills it; the next engine finishes that stop.
    #[serde(default)]
    pub(crate) stop_by: Option<Timestamp>,
    pub(crate) backoff: Backoff,
    pub(crate) health: Option<Health>,
    /// Its place in the networks while it runs. The version before had one endpoint there.
    #[serde(alias = "endpoint")]
    pub(crate) attachment: Option<network::Attachment>,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            status: Status::Created,
            pid: None,
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            life: String::new(),
            went_with_machine: false,
            stopped_by_hand: false,
            stop_by: None,
            backoff: Backoff::default(),
            health: None,
            attachment: None,
        }
    }
}

impl Noun for Record {
    const TABLE: &'static str = "containers";
    const FORMAT: u32 = 2;
}

impl Record {
    /// Its restart policy; names were checked when it was created.
    pub(crate) fn restart_policy(&self) -> Policy {
        let policy = &self.host_config.restart_policy;
        match policy.name.as_str() {
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "on-failure" => {
                Policy::OnFailure { retries: u32::try_from(policy.maximum_retry_count).unwrap_or(0) }
            }
            _ => Policy::No,
        }
    }

    /// The program and its arguments: entrypoint, then command.
    pub(crate) fn command(&self) -> Vec<String> {
        let parts = [&self.config.entrypoint, &self.config.cmd];
        parts.into_iter().flatten().flat_map(|words| words.iter().cloned()).collect()
    }

    /// How the image is shown: the reference the client gave.
    pub(crate) fn image_name(&self) -> &str {
        &self.config.image
    }

    /// Docker's seconds to wait for an end that was asked for; negative waits for ever.
    pub(crate) fn stop_timeout(&self) -> i64 {
        /// Source: moby, `container/container_unix.go`, `defaultStopTimeout`.
        const DEFAULT_SECONDS: i64 = 10;
        self.config.stop_timeout.unwrap_or(DEFAULT_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_the_version_with_one_network_is_read() {
        let mut old = serde_json::to_value(Run { status: Status::Running, ..Run::default() }).unwrap();
        let run = old.as_object_mut().unwrap();
        run.remove("attachment");
        run.insert(
            "endpoint".to_owned(),
            serde_json::json!({
                "mode": "bridge", "network_id": "n", "endpoint_id": "e", "ip": "172.17.0.2", "prefix": 16,
                "gateway": "172.17.0.1", "mac": "02:42:ac:11:00:02", "interfaces": [], "ports": [],
            }),
        );
        let read: Run = serde_json::from_value(old).unwrap();
        let attachment = read.attachment.unwrap();
        assert_eq!(attachment.endpoint("bridge").unwrap().endpoint_id, "e");
    }
}
