//! `swarm join`.

use crate::Outcome;
use crate::client::Client;
use crate::commands::swarm::settings::availability;
use crate::output::line;
use clap::Args;
use serde_json::json;

/// `swarm join [OPTIONS] HOST:PORT`
#[derive(Debug, Args)]
pub struct Join {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, value_name = "string")]
    advertise_addr: Option<String>,
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, value_name = "string")]
    data_path_addr: Option<String>,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377", value_name = "node-addr")]
    listen_addr: String,
    /// Token for entry into the swarm
    #[arg(long, default_value = "", value_name = "string")]
    token: String,
    /// A manager of the swarm
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

impl Join {
    /// Joins, and tells as what.
    pub async fn run(self, client: &Client) -> Outcome {
        let body = json!({
            "JoinToken": self.token,
            "ListenAddr": self.listen_addr,
            "AdvertiseAddr": self.advertise_addr.unwrap_or_default(),
            "DataPathAddr": self.data_path_addr.unwrap_or_default(),
            "RemoteAddrs": [self.remote],
            "Availability": availability(&self.availability)?,
        });
        client.post("/swarm/join").json(&body).send().await?;
        let info = client.get("/info").value().await?;
        let role = if info["Swarm"]["ControlAvailable"] == true { "manager" } else { "worker" };
        line(&format!("This node joined a swarm as a {role}."));
        Ok(())
    }
}
