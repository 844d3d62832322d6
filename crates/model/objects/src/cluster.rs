//! The cluster: settings that hold for the whole swarm, its trust root and its join tokens.
//!
//! In and out: Docker's `Swarm` (`ClusterInfo`) with every field of API 1.51.

use std::collections::BTreeMap;

use crate::json::{object, shape};
use crate::{ClusterId, Driver, Labels, Nanos, NodeId, Timestamp, TlsInfo};

/// Finished tasks kept per slot, counting live ones. Source: moby, `daemon/cluster/swarm.go` defaults.
pub const DEFAULT_TASK_HISTORY: i64 = 5;

object! {
    /// The swarm as a whole.
    pub struct Cluster {
        always {
            /// Id of the cluster.
            #[serde(rename = "ID")]
            pub id: ClusterId,
            /// What a user asked for.
            pub spec: ClusterSpec,
            /// What its certificates trust.
            #[serde(rename = "TLSInfo")]
            pub tls_info: TlsInfo,
            /// Whether the trust root is being replaced.
            pub root_rotation_in_progress: bool,
            /// Address pools for overlay networks.
            pub default_addr_pool: Vec<String>,
            /// Prefix length of networks from the pools.
            pub subnet_size: u32,
            /// UDP port of the overlay traffic.
            pub data_path_port: u32,
            /// What only the managers know.
            pub internal: ClusterInternal,
        }
    }
}

shape! {
    /// Secrets of the cluster; never shown by the API, except for the join tokens.
    pub struct ClusterInternal {
        /// Certificate of the authority, PEM: what every node trusts.
        pub ca_certificate: String,
        /// Raised whenever `unlock_key` changes: a manager seals its key file anew when its own is lower.
        pub unlock_key_version: u64,
        /// The root that the swarm changes to; `None` when it does not.
        pub root_rotation: Option<RootRotation>,
        /// Since when certificates come from the issuer in `Cluster::tls_info`; zero since the swarm exists.
        pub issuer_since: Timestamp,
        /// The `force_rotate` that was acted on last.
        pub last_forced_rotation: u64,
        /// Nodes that were removed, each with the time from when no certificate of it can be valid any more.
        pub removed_nodes: BTreeMap<NodeId, Timestamp>,
        /// The log that the roles of the nodes were settled for; zero in a swarm of an older version. A forced new cluster
        /// begins another one.
        pub epoch: u64,
        /// The logs of before: a manager that still has one of them has no part in this swarm any more.
        pub former_epochs: Vec<u64>,
        /// Keys of the traffic of encrypted networks, the oldest first; see [`NetworkKey`].
        pub network_keys: Vec<NetworkKey>,
        /// Whether it was given its ingress network: one that a user removed is not made again.
        pub had_ingress: bool,
        /// Id of the request that the settings were last changed by: one that is made again finds itself here.
        pub last_request: String,
        hidden {
            /// Key of the authority, PEM; empty when an authority outside the swarm has it.
            pub ca_key: String,
            /// Token that lets workers join.
            pub worker_token: String,
            /// Token that lets managers join.
            pub manager_token: String,
            /// Key that unlocks managers (`SWMKEY-1-…`); empty when they do not lock.
            pub unlock_key: String,
            /// Secret that the keys of the nodes' proofs of life are made from: 32 bytes in base 64.
            pub pulse_secret: String,
        }
    }

    /// What the keys of encrypted networks are derived from, for each pair of nodes and direction.
    pub struct NetworkKey {
        /// Counts the keys: the newer one has the higher number.
        pub number: u64,
        /// When it was made, by the leader's clock.
        pub made_at: Timestamp,
        hidden {
            /// 32 bytes in base 64.
            pub key: String,
        }
    }

    /// A new root on its way to be the only one.
    pub struct RootRotation {
        /// Its certificate, PEM.
        pub ca_certificate: String,
        /// Its subject and key in a certificate of the old root, PEM: what makes the old root trust its leaves.
        pub cross_signed: String,
        hidden {
            /// Its key, PEM; empty when an authority outside the swarm has it.
            pub ca_key: String,
        }
    }

    /// What a user asked the swarm to be.
    pub struct ClusterSpec {
        /// Always `default`.
        pub name: String,
        always {
            /// Labels of the cluster.
            pub labels: Labels,
            /// About tasks.
            pub orchestration: OrchestrationConfig,
            /// About the replicated log.
            pub raft: RaftConfig,
            /// About sessions of nodes.
            pub dispatcher: DispatcherConfig,
            /// About certificates.
            #[serde(rename = "CAConfig")]
            pub ca_config: CaConfig,
            /// What tasks get when their service says nothing.
            pub task_defaults: TaskDefaults,
            /// About the managers' storage.
            pub encryption_config: EncryptionConfig,
        }
    }

    /// Settings about tasks.
    pub struct OrchestrationConfig {
        /// Tasks kept per slot, counting live ones; negative keeps all, `None` is 5.
        pub task_history_retention_limit: Option<i64>,
    }

    /// Settings about the replicated log.
    pub struct RaftConfig {
        /// Entries between two snapshots.
        pub snapshot_interval: u64,
        /// Old snapshots kept.
        pub keep_old_snapshots: Option<u64>,
        /// Entries kept behind a snapshot.
        pub log_entries_for_slow_followers: u64,
        always {
            /// Ticks without a leader before an election.
            pub election_tick: i64,
            /// Ticks between two heartbeats.
            pub heartbeat_tick: i64,
        }
    }

    /// Settings about sessions of nodes.
    pub struct DispatcherConfig {
        /// Time between two signs of life.
        pub heartbeat_period: Nanos,
    }

    /// Settings about certificates.
    pub struct CaConfig {
        /// How long a node's certificate lasts.
        pub node_cert_expiry: Nanos,
        /// Authorities outside the swarm.
        #[serde(rename = "ExternalCAs")]
        pub external_cas: Vec<ExternalCa>,
        /// A root certificate to change to, PEM.
        #[serde(rename = "SigningCACert")]
        pub signing_ca_cert: String,
        /// Counter that replaces the root when raised.
        pub force_rotate: u64,
        hidden {
            /// Its key, PEM.
            #[serde(rename = "SigningCAKey")]
            pub signing_ca_key: String,
        }
    }

    /// An authority outside the swarm.
    pub struct ExternalCa {
        /// `cfssl`.
        pub protocol: String,
        /// Where it is.
        #[serde(rename = "URL")]
        pub url: String,
        /// Options of the protocol.
        pub options: BTreeMap<String, String>,
        /// Its certificate, PEM.
        #[serde(rename = "CACert")]
        pub ca_cert: String,
    }

    /// What tasks get when their service says nothing.
    pub struct TaskDefaults {
        /// Log driver of tasks.
        pub log_driver: Option<Driver>,
    }

    /// Settings about the managers' storage.
    pub struct EncryptionConfig {
        always {
            /// Whether a restarted manager waits to be unlocked.
            pub auto_lock_managers: bool,
        }
    }
}

impl ClusterSpec {
    /// The spec with every zero replaced by its default.
    ///
    /// Source: moby, `daemon/cluster/swarm.go` and swarmkit, `api/defaults`; certificates last 90 days.
    pub fn with_defaults(mut self) -> Self {
        if self.name.is_empty() {
            self.name = "default".to_owned();
        }
        self.orchestration.task_history_retention_limit.get_or_insert(DEFAULT_TASK_HISTORY);
        fill(&mut self.raft.snapshot_interval, 10_000);
        fill(&mut self.raft.log_entries_for_slow_followers, 500);
        self.raft.keep_old_snapshots.get_or_insert(0);
        fill(&mut self.raft.election_tick, 10);
        fill(&mut self.raft.heartbeat_tick, 1);
        fill(&mut self.dispatcher.heartbeat_period, Nanos::from_secs(5));
        fill(&mut self.ca_config.node_cert_expiry, Nanos::from_secs(90 * 86_400));
        self
    }

    /// Tasks kept per slot, counting live ones; `None` keeps all.
    pub fn task_history(&self) -> Option<usize> {
        let limit = self.orchestration.task_history_retention_limit.unwrap_or(DEFAULT_TASK_HISTORY);
        usize::try_from(limit).ok()
    }
}

fn fill<T: Default + PartialEq>(value: &mut T, default: T) {
    if *value == T::default() {
        *value = default;
    }
}

impl Cluster {
    /// As Docker's `GET /swarm` shows it, with the join tokens.
    pub fn to_api(&self) -> serde_json::Value {
        let mut value = crate::json::api_value(self);
        let tokens = serde_json::json!({
            "Worker": self.internal.worker_token,
            "Manager": self.internal.manager_token,
        });
        value.as_object_mut().expect("a cluster is an object").insert("JoinTokens".to_owned(), tokens);
        value
    }
}
