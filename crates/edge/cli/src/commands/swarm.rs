//! Commands on the swarm.

use crate::client::Client;
use crate::commands::read;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::{Args, Subcommand};
use serde_json::json;

/// `swarm COMMAND`
#[derive(Debug, Subcommand)]
pub enum Swarm {
    /// Initialize a swarm
    Init(Init),
    /// Manage join tokens
    JoinToken(JoinToken),
    /// Leave the swarm
    Leave(Leave),
}

/// `swarm init [OPTIONS]`
#[derive(Debug, Args)]
pub struct Init {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long)]
    advertise_addr: Option<String>,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long)]
    data_path_addr: Option<String>,
    /// Port number to use for data path traffic (1024 - 49151); 0 means 4789
    #[arg(long, default_value_t = 0)]
    data_path_port: u32,
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    availability: String,
    /// Default address pool in CIDR format
    #[arg(long, value_name = "ipNetSlice")]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Task history retention limit
    #[arg(long, default_value_t = 5, allow_hyphen_values = true)]
    task_history_limit: i64,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, default_value = "2160h0m0s")]
    cert_expiry: String,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, default_value = "5s")]
    dispatcher_heartbeat: String,
    /// Number of additional Raft snapshots to retain
    #[arg(long, default_value_t = 0)]
    max_snapshots: u64,
    /// Number of log entries between Raft snapshots
    #[arg(long, default_value_t = 10_000)]
    snapshot_interval: u64,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager)
    #[arg(long)]
    autolock: bool,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
}

/// `swarm join-token (worker|manager)`
#[derive(Debug, Args)]
pub struct JoinToken {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Role the token gives
    role: String,
}

/// `swarm leave [OPTIONS]`
#[derive(Debug, Args)]
pub struct Leave {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(short, long)]
    force: bool,
}

impl Swarm {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Swarm::Init(it) => it.run(client).await,
            Swarm::JoinToken(it) => print_token(client, &it.role, it.quiet).await,
            Swarm::Leave(it) => {
                client.post("/swarm/leave").flag("force", it.force).send().await?;
                line("Node left the swarm.");
                Ok(())
            }
        }
    }
}

impl Init {
    async fn run(self, client: &Client) -> Outcome {
        let body = json!({
            "ListenAddr": self.listen_addr,
            "AdvertiseAddr": self.advertise_addr.unwrap_or_default(),
            "DataPathAddr": self.data_path_addr.unwrap_or_default(),
            "DataPathPort": self.data_path_port,
            "DefaultAddrPool": self.default_addr_pool,
            "SubnetSize": self.default_addr_pool_mask_length,
            "ForceNewCluster": self.force_new_cluster,
            "Availability": self.availability,
            "AutoLockManagers": self.autolock,
            "Spec": {
                "Orchestration": {"TaskHistoryRetentionLimit": self.task_history_limit},
                "Raft": {"SnapshotInterval": self.snapshot_interval, "KeepOldSnapshots": self.max_snapshots},
                "Dispatcher": {"HeartbeatPeriod": read::duration(&self.dispatcher_heartbeat)?},
                "CAConfig": {"NodeCertExpiry": read::duration(&self.cert_expiry)?},
                "EncryptionConfig": {"AutoLockManagers": self.autolock},
            },
        });
        let node = client.post("/swarm/init").json(&body).value().await.map_err(|mut error| {
            let text = error.to_string();
            if text.contains("could not choose an IP address to advertise")
                || text.contains("could not find the system's IP address")
            {
                error.message = format!("{text} - specify one with --advertise-addr");
            }
            error
        })?;
        let node = node.as_str().unwrap_or_default();
        line(&format!("Swarm initialized: current node ({node}) is now a manager.\n"));
        print_token(client, "worker", false).await?;
        line(
            "To add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions.\n",
        );
        Ok(())
    }
}

async fn print_token(client: &Client, role: &str, quiet: bool) -> Outcome {
    if !["worker", "manager"].contains(&role) {
        return Err(CliError::new(format!("unknown role {role}")));
    }
    let swarm = client.get("/swarm").value().await?;
    let key = if role == "manager" { "Manager" } else { "Worker" };
    let token = swarm["JoinTokens"][key].as_str().unwrap_or_default();
    if quiet {
        line(token);
        return Ok(());
    }
    let info = client.get("/info").value().await?;
    let own = info["Swarm"]["NodeID"].as_str().unwrap_or_default().to_owned();
    let managers = info["Swarm"]["RemoteManagers"].as_array();
    let address = managers.into_iter().flatten().find(|manager| manager["NodeID"] == own.as_str());
    let address = address.and_then(|manager| manager["Addr"].as_str()).unwrap_or_default();
    line(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    skep swarm join --token {token} {address}\n"
    ));
    Ok(())
}
