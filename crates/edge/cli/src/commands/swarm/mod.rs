//! Commands on the swarm.

mod ca;
mod init;
mod join;
mod settings;
mod token;
mod unlock;

use crate::Outcome;
use crate::client::Client;
use crate::output::line;
use clap::{Args, Subcommand};

/// `swarm COMMAND`
#[derive(Debug, Subcommand)]
pub enum Swarm {
    /// Display and rotate the root CA
    Ca(ca::Ca),
    /// Initialize a swarm
    Init(init::Init),
    /// Join a swarm as a node and/or manager
    Join(join::Join),
    /// Manage join tokens
    JoinToken(token::JoinToken),
    /// Leave the swarm
    Leave(Leave),
    /// Unlock swarm
    Unlock(unlock::Unlock),
    /// Manage the unlock key
    UnlockKey(unlock::UnlockKey),
    /// Update the swarm
    Update(settings::Update),
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
            Swarm::Ca(it) => it.run(client).await,
            Swarm::Init(it) => it.run(client).await,
            Swarm::Join(it) => it.run(client).await,
            Swarm::JoinToken(it) => it.run(client).await,
            Swarm::Leave(it) => {
                client.post("/swarm/leave").flag("force", it.force).send().await?;
                line("Node left the swarm.");
                Ok(())
            }
            Swarm::Unlock(it) => it.run(client).await,
            Swarm::UnlockKey(it) => it.run(client).await,
            Swarm::Update(it) => it.run(client).await,
        }
    }
}
