//! The commands, by noun, and the top level that has the common ones as shortcuts.

pub mod container;
pub mod image;
pub mod inspect;
pub mod login;
pub mod mounts;
pub mod network;
pub mod node;
pub mod ports;
mod pretty;
pub mod read;
pub mod service;
pub mod show;
pub mod swarm;
pub mod system;
pub mod volume;

use crate::Outcome;
use crate::client::Client;
use crate::grammar;
use clap::{ArgMatches, FromArgMatches, Subcommand};

/// `skep COMMAND`, with docker's grammar.
#[derive(Debug)]
pub struct Command(Verb);

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Command, clap::Error> {
        Verb::from_arg_matches(matches).map(Command)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Subcommand for Command {
    fn augment_subcommands(root: clap::Command) -> clap::Command {
        grammar::dress(Verb::augment_subcommands(root))
    }

    fn augment_subcommands_for_update(root: clap::Command) -> clap::Command {
        grammar::dress(Verb::augment_subcommands_for_update(root))
    }

    fn has_subcommand(name: &str) -> bool {
        Verb::has_subcommand(name)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A command on containers, also without the word `container`
    #[command(flatten)]
    Short(Box<container::Verb>),
    /// Build an image from a Dockerfile
    Build(Box<image::build::Build>),
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
    /// Return low-level information on Docker objects
    Inspect(inspect::Any),
    /// Load an image from a tar archive or STDIN
    Load(image::Load),
    /// Authenticate to a registry
    Login(login::Login),
    /// Log out from a registry
    Logout(login::Logout),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage Swarm nodes
    #[command(subcommand)]
    Node(node::Node),
    /// Download an image from a registry
    Pull(image::pull::Pull),
    /// Upload an image to a registry
    Push(image::push::Push),
    /// Remove one or more images
    Rmi(image::Remove),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(image::push::Save),
    /// Search Docker Hub for images
    Search(image::push::Search),
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
        match self.0 {
            Verb::Short(it) => it.run(client).await,
            Verb::Build(it) => it.run(client).await,
            Verb::Container(it) => it.run(client).await,
            Verb::Events(it) => it.run(client).await,
            Verb::History(it) => it.run(client).await,
            Verb::Image(it) => it.run(client).await,
            Verb::Images(it) => it.run(client).await,
            Verb::Import(it) => it.run(client).await,
            Verb::Info(it) => it.run(client).await,
            Verb::Inspect(it) => it.run(client).await,
            Verb::Load(it) => it.run(client).await,
            Verb::Login(it) => it.run(client).await,
            Verb::Logout(it) => it.run(),
            Verb::Network(it) => it.run(client).await,
            Verb::Node(it) => it.run(client).await,
            Verb::Pull(it) => it.run(client).await,
            Verb::Push(it) => it.run(client).await,
            Verb::Save(it) => it.run(client).await,
            Verb::Search(it) => it.run(client).await,
            Verb::Rmi(it) => it.run(client).await,
            Verb::Service(it) => it.run(client).await,
            Verb::Swarm(it) => it.run(client).await,
            Verb::Tag(it) => it.run(client).await,
            Verb::Version(it) => it.run(client).await,
            Verb::Volume(it) => it.run(client).await,
        }
    }
}
