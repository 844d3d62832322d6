//! `swarm init`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::swarm::settings::{Settings, availability};
use crate::commands::swarm::token::print_token;
use crate::commands::swarm::unlock::print_unlock_key;
use crate::output::line;
use clap::Args;
use serde_json::json;

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
    #[arg(long, default_value = "active")]
    availability: String,
    /// Default address pool in CIDR format
    #[arg(long, value_name = "ipNetSlice")]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    #[command(flatten)]
    settings: Settings,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager)
    #[arg(long)]
    autolock: bool,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
}

impl Init {
    /// Founds a swarm and tells how others join.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut spec = json!({"EncryptionConfig": {"AutoLockManagers": self.autolock}});
        self.settings.or_defaults().apply(&mut spec);
        let body = json!({
            "ListenAddr": self.listen_addr,
            "AdvertiseAddr": self.advertise_addr.unwrap_or_default(),
            "DataPathAddr": self.data_path_addr.unwrap_or_default(),
            "DataPathPort": self.data_path_port,
            "DefaultAddrPool": self.default_addr_pool,
            "SubnetSize": self.default_addr_pool_mask_length,
            "ForceNewCluster": self.force_new_cluster,
            "Availability": availability(&self.availability)?,
            "AutoLockManagers": self.autolock,
            "Spec": spec,
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
        print_token(client, "worker").await?;
        line(
            "To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.\n",
        );
        if self.autolock {
            print_unlock_key(client).await?;
        }
        Ok(())
    }
}
