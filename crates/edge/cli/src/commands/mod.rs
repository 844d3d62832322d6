//! The commands, by noun, and the top level that has the common ones as shortcuts.

pub mod container;
pub mod image;
pub mod inspect;
pub mod mounts;
pub mod network;
pub mod node;
pub mod ports;
pub mod read;
pub mod service;
pub mod show;
pub mod swarm;
pub mod system;
pub mod volume;

use crate::Outcome;
use crate::client::Client;
use clap::Subcommand;

/// `skep COMMAND`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A command on containers, also without the word `container`
    #[command(flatten)]
    Short(Box<container::Container>),
    /// Manage containers
    #[command(subcommand)]
    Container(Box<container::Container>),
    /// Get real time events from the server
    Events(system::Events),
    /// Show the history of an image
    History(image::History),
    /// Manage images
    #[command(subcommand)]
    Image(image::Image),
    /// List images
    Images(image::list::List),
    /// Import the contents from a tarball to create a filesystem image
    Import(image::Import),
    /// Display system-wide information
    Info(system::Info),
    /// Load an image from a tar archive or STDIN
    Load(image::Load),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage Swarm nodes
    #[command(subcommand)]
    Node(node::Node),
    /// Download an image from a registry
    Pull(image::pull::Pull),
    /// Remove one or more images
    Rmi(image::Remove),
    /// Manage Swarm services
    #[command(subcommand)]
    Service(service::Service),
    /// Manage Swarm
    #[command(subcommand)]
    Swarm(swarm::Swarm),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::Tag),
    /// Show the version information
    Version(system::Version),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::Volume),
}

impl Command {
    /// Runs the command against the daemon of `client`.
    pub async fn run(self, client: &Client) -> Outcome {
        match self {
            // Without the word `container`, `inspect` looks at every kind of object.
            Command::Short(it) => match *it {
                container::Container::Inspect(it) => it.run(client, None).await,
                other => other.run(client).await,
            },
            Command::Container(it) => it.run(client).await,
            Command::Events(it) => it.run(client).await,
            Command::History(it) => it.run(client).await,
            Command::Image(it) => it.run(client).await,
            Command::Images(it) => it.run(client).await,
            Command::Import(it) => it.run(client).await,
            Command::Info(it) => it.run(client).await,
            Command::Load(it) => it.run(client).await,
            Command::Network(it) => it.run(client).await,
            Command::Node(it) => it.run(client).await,
            Command::Pull(it) => it.run(client).await,
            Command::Rmi(it) => it.run(client).await,
            Command::Service(it) => it.run(client).await,
            Command::Swarm(it) => it.run(client).await,
            Command::Tag(it) => it.run(client).await,
            Command::Version(it) => it.run(client).await,
            Command::Volume(it) => it.run(client).await,
        }
    }
}
