//! `network connect`, `disconnect`, `rm` and `prune`.
//!
//! Source of grammar and texts: docker/cli, `cli/command/network`.

use crate::client::Client;
use crate::commands::read;
use crate::output::{line, print};
use crate::{CliError, Outcome, each};
use clap::Args;
use serde_json::{Value, json};
use std::io::BufRead;

const PRUNE_WARNING: &str = "WARNING! This will remove all custom networks not used by at least one container.\n\
     Are you sure you want to continue?";
const INGRESS_WARNING: &str = "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same docker engine version. Otherwise, removal may not be effective and functionality of newly create ingress networks will be impaired.\n\
     Are you sure you want to continue?";

/// `network connect [OPTIONS] NETWORK CONTAINER`
#[derive(Debug, Args)]
pub struct Connect {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    alias: Vec<String>,
    /// driver options for the network
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    gw_priority: Option<i64>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "ip")]
    ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "ip")]
    ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "ipSlice")]
    link_local_ip: Vec<String>,
    /// Network to connect to
    network: String,
    /// Container to connect
    container: String,
}

/// `network disconnect [OPTIONS] NETWORK CONTAINER`
#[derive(Debug, Args)]
pub struct Disconnect {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    /// Network to disconnect from
    network: String,
    /// Container to disconnect
    container: String,
}

/// `network rm NETWORK [NETWORK...]`
#[derive(Debug, Args)]
pub struct Remove {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    /// Networks to remove
    #[arg(required = true)]
    networks: Vec<String>,
}

/// `network prune [OPTIONS]`
#[derive(Debug, Args)]
pub struct Prune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Asks; whether the answer is yes. No answer is none.
fn prompt(question: &str) -> Result<bool, CliError> {
    print(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::new(format!("failed to read the answer: {error}")))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

impl Connect {
    /// Connects the container.
    pub async fn run(self, client: &Client) -> Outcome {
        let mut endpoint = json!({
            "Aliases": self.alias,
            "Links": self.link,
            "DriverOpts": read::pairs(&self.driver_opt),
            "GwPriority": self.gw_priority.unwrap_or_default(),
        });
        if self.ip.is_some() || self.ip6.is_some() || !self.link_local_ip.is_empty() {
            endpoint["IPAMConfig"] = json!({
                "IPv4Address": self.ip.unwrap_or_default(),
                "IPv6Address": self.ip6.unwrap_or_default(),
                "LinkLocalIPs": self.link_local_ip,
            });
        }
        let body = json!({"Container": self.container, "EndpointConfig": endpoint});
        client.post(format!("/networks/{}/connect", self.network)).json(&body).send().await.map(drop)
    }
}

impl Disconnect {
    /// Disconnects the container.
    pub async fn run(self, client: &Client) -> Outcome {
        let body = json!({"Container": self.container, "Force": self.force});
        client.post(format!("/networks/{}/disconnect", self.network)).json(&body).send().await.map(drop)
    }
}

impl Remove {
    /// Removes each network, and asks before it is the one of the routing mesh.
    pub async fn run(self, client: &Client) -> Outcome {
        each(&self.networks, async |name| {
            let found = client.get(format!("/networks/{name}")).value().await;
            let is_ingress = found.as_ref().is_ok_and(|network| network["Ingress"] == Value::Bool(true));
            if is_ingress && !prompt(INGRESS_WARNING)? {
                return Ok(());
            }
            match client.delete(format!("/networks/{name}")).send().await {
                Err(error) if self.force && found.is_err() => {
                    // Nothing has this name: with `--force` that is as wanted.
                    drop(error);
                    return Ok(());
                }
                removed => removed.map(drop)?,
            }
            line(name);
            Ok(())
        })
        .await
    }
}

impl Prune {
    /// Removes networks nobody uses.
    pub async fn run(self, client: &Client) -> Outcome {
        if !self.force && !prompt(PRUNE_WARNING)? {
            return Err(CliError::new("network prune has been cancelled"));
        }
        let report = client
            .post("/networks/prune")
            .query_some("filters", read::filters(&self.filter)?)
            .value()
            .await?;
        let deleted: Vec<&str> =
            report["NetworksDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !deleted.is_empty() {
            line(&format!("Deleted Networks:\n{}\n", deleted.join("\n")));
        }
        Ok(())
    }
}
