//! Commands on containers.

pub mod attach;
pub mod exec;
pub mod files;
pub mod flags;
pub mod lifecycle;
pub mod list;
pub mod port;
pub mod run;
pub mod stats;

use crate::Outcome;
use crate::client::Client;
use crate::commands::inspect;
use clap::Subcommand;

/// `container COMMAND`
#[derive(Debug, Subcommand)]
pub enum Container {
    /// A command that needs no word `container` before it
    #[command(flatten)]
    Verb(Verb),
    /// Display detailed information on one or more containers
    Inspect(inspect::OfContainers),
}

/// Commands on containers that stand at the top as well.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Attach),
    /// Create a new image from a container's changes
    Commit(files::Commit),
    /// Create a new container
    Create(Box<run::Create>),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(files::Diff),
    /// Execute a command in a running container
    Exec(exec::Exec),
    /// Export a container's filesystem as a tar archive
    Export(files::Export),
    /// Kill one or more running containers
    Kill(lifecycle::Kill),
    /// Fetch the logs of a container
    Logs(attach::Logs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::List),
    /// Pause all processes within one or more containers
    Pause(lifecycle::Names),
    /// List port mappings or a specific mapping for the container
    Port(port::Port),
    /// Rename a container
    Rename(lifecycle::Rename),
    /// Restart one or more containers
    Restart(lifecycle::Stop),
    /// Remove one or more containers
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    /// Create and run a new container from an image
    Run(Box<run::Run>),
    /// Start one or more stopped containers
    Start(lifecycle::Start),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::Stats),
    /// Stop one or more running containers
    Stop(lifecycle::Stop),
    /// Display the running processes of a container
    Top(lifecycle::Top),
    /// Unpause all processes within one or more containers
    Unpause(lifecycle::Names),
    /// Block until one or more containers stop, then print their exit codes
    Wait(lifecycle::Names),
}

impl Container {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Container::Verb(it) => it.run(client).await,
            Container::Inspect(it) => it.run(client).await,
        }
    }
}

impl Verb {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            Verb::Attach(it) => it.run(client).await,
            Verb::Commit(it) => it.run(client).await,
            Verb::Create(it) => it.run(client).await,
            Verb::Diff(it) => it.run(client).await,
            Verb::Exec(it) => it.run(client).await,
            Verb::Export(it) => it.run(client).await,
            Verb::Kill(it) => it.run(client).await,
            Verb::Logs(it) => it.run(client).await,
            Verb::Ls(it) => it.run(client).await,
            Verb::Pause(it) => it.call(client, "pause").await,
            Verb::Port(it) => it.run(client).await,
            Verb::Rename(it) => it.run(client).await,
            Verb::Restart(it) => it.run(client, "restart").await,
            Verb::Rm(it) => it.run(client).await,
            Verb::Run(it) => it.run(client).await,
            Verb::Start(it) => it.run(client).await,
            Verb::Stats(it) => it.run(client).await,
            Verb::Stop(it) => it.run(client, "stop").await,
            Verb::Top(it) => it.run(client).await,
            Verb::Unpause(it) => it.call(client, "unpause").await,
            Verb::Wait(it) => it.wait(client).await,
        }
    }
}
