//! `swarm unlock` and `swarm unlock-key`.

use crate::client::Client;
use crate::output::{line, print};
use crate::terminal::RawMode;
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::json;
use std::io::BufRead as _;

/// `swarm unlock`
#[derive(Debug, Args)]
pub struct Unlock {}

/// `swarm unlock-key [OPTIONS]`
#[derive(Debug, Args)]
pub struct UnlockKey {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
}

impl Unlock {
    /// Reads the key from the terminal without showing it, or a line of standard input.
    pub async fn run(self, client: &Client) -> Outcome {
        let info = client.get("/info").value().await?;
        match info["Swarm"]["LocalNodeState"].as_str() {
            Some("locked") => {}
            // Source: docker/cli `swarm/unlock.go`.
            Some("inactive") | None => {
                return Err(CliError::new("Error: This node is not part of a swarm"));
            }
            Some(_) => return Err(CliError::new("Error: swarm is not locked")),
        }
        let key = read_key()?;
        client.post("/swarm/unlock").json(&json!({"UnlockKey": key.trim()})).send().await?;
        Ok(())
    }
}

fn read_key() -> Result<String, CliError> {
    let hidden = RawMode::hide_typing();
    if hidden.is_some() {
        print("Enter unlock key: ");
    }
    let mut key = String::new();
    let read = std::io::stdin().lock().read_line(&mut key);
    if hidden.is_some() {
        // The line's end was typed, but not shown either.
        line("");
    }
    read.map_err(|error| CliError::new(format!("read the unlock key: {error}")))?;
    Ok(key)
}

impl UnlockKey {
    /// Prints the key that unlocks this swarm's managers, after changing it if asked to.
    pub async fn run(self, client: &Client) -> Outcome {
        if self.rotate {
            let swarm = client.get("/swarm").value().await?;
            if swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"] != true {
                return Err(CliError::new("cannot rotate because autolock is not turned on"));
            }
            let update = client.post("/swarm/update").query("version", &swarm["Version"]["Index"]);
            update.flag("rotateManagerUnlockKey", true).json(&swarm["Spec"]).send().await?;
            if !self.quiet {
                line("Successfully rotated manager unlock key.\n");
            }
        }
        let key = unlock_key(client).await?;
        if self.quiet {
            line(&key);
            return Ok(());
        }
        explain(&key);
        Ok(())
    }
}

async fn unlock_key(client: &Client) -> Result<String, CliError> {
    let answer = client.get("/swarm/unlockkey").value().await?;
    match answer["UnlockKey"].as_str() {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(CliError::new("no unlock key is set")),
    }
}

/// Prints the key that unlocks this swarm's managers, and what it is for.
pub(super) async fn print_unlock_key(client: &Client) -> Outcome {
    explain(&unlock_key(client).await?);
    Ok(())
}

fn explain(key: &str) {
    print(&format!(
        "To unlock a swarm manager after it restarts, run the `skep swarm unlock`\ncommand and provide the following key:\n\n    {key}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n"
    ));
}
