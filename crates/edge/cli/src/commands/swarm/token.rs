//! `swarm join-token`.

use crate::client::Client;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;

/// `swarm join-token [OPTIONS] (worker|manager)`
#[derive(Debug, Args)]
pub struct JoinToken {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    /// Role the token gives
    role: String,
}

impl JoinToken {
    /// Prints the token, or the whole command that joins with it.
    pub async fn run(self, client: &Client) -> Outcome {
        let is_worker = self.role == "worker";
        if !is_worker && self.role != "manager" {
            return Err(CliError::new(format!("unknown role {}", self.role)));
        }
        if self.rotate {
            let swarm = client.get("/swarm").value().await?;
            let update = client.post("/swarm/update").query("version", &swarm["Version"]["Index"]);
            let update = update.flag("rotateWorkerToken", is_worker).flag("rotateManagerToken", !is_worker);
            update.json(&swarm["Spec"]).send().await?;
            if !self.quiet {
                line(&format!("Successfully rotated {} join token.\n", self.role));
            }
        }
        if !self.quiet {
            return print_token(client, &self.role).await;
        }
        line(&token(client, &self.role).await?);
        Ok(())
    }
}

async fn token(client: &Client, role: &str) -> Result<String, CliError> {
    let swarm = client.get("/swarm").value().await?;
    let key = if role == "manager" { "Manager" } else { "Worker" };
    Ok(swarm["JoinTokens"][key].as_str().unwrap_or_default().to_owned())
}

/// Prints how to join as `role`: with this manager's own address.
pub(super) async fn print_token(client: &Client, role: &str) -> Outcome {
    let token = token(client, role).await?;
    let info = client.get("/info").value().await?;
    let own = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
    let node = client.get(format!("/nodes/{own}")).value().await?;
    let address = node["ManagerStatus"]["Addr"].as_str().unwrap_or_default();
    line(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    skep swarm join --token {token} {address}\n"
    ));
    Ok(())
}
