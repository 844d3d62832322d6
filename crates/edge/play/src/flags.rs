//! The grammar of `skep play`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

/// Machines of a play. chosen: the fewest that can lose one of three managers.
const NODES: u8 = 3;
/// Managers of a play. chosen: as after `docker swarm init`.
const MANAGERS: u8 = 1;

/// `skep play [OPTIONS] [COMMAND]`
#[derive(Debug, Args)]
#[command(after_help = "Without a command, makes machines and one swarm of them. For example:\n  \
                  skep play --nodes 3 --managers 3\n  \
                  skep play exec n1 docker node ls\n  \
                  skep play kill n1\n  \
                  skep play rm")]
pub struct PlayFlags {
    #[command(flatten)]
    pub(crate) start: Option<StartFlags>,
    /// Which play, when there are several
    #[arg(long, default_value = "play", global = true, value_name = "name")]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// How a play starts; absent when none of these is given.
#[derive(Debug, Args)]
pub(crate) struct StartFlags {
    /// Machines to start, called n1, n2, …
    #[arg(long, default_value_t = NODES, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "count")]
    pub(crate) nodes: u8,
    /// How many of them are managers
    #[arg(long, default_value_t = MANAGERS, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "count")]
    pub(crate) managers: u8,
    /// Network of the machines [default: the first free one of 10.99.0.0/24, 10.99.1.0/24, …]
    #[arg(long, value_name = "cidr")]
    pub(crate) subnet: Option<Ipv4Net>,
    /// Image archive to load on every machine
    #[arg(long, value_name = "file")]
    pub(crate) load: Vec<PathBuf>,
    /// Flag for every daemon, such as --daemon-flag=--log-level=debug
    #[arg(long, value_name = "flag", allow_hyphen_values = true)]
    pub(crate) daemon_flag: Vec<String>,
    /// Start the machines only, without making them a swarm
    #[arg(long)]
    pub(crate) no_swarm: bool,
}

impl Default for StartFlags {
    fn default() -> Self {
        let (subnet, load, daemon_flag) = (None, Vec::new(), Vec::new());
        Self { nodes: NODES, managers: MANAGERS, subnet, load, daemon_flag, no_swarm: false }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the machines
    Ls,
    /// Run a command on a machine, with DOCKER_HOST set to its daemon
    Exec {
        /// Machine
        node: String,
        /// Command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Switch machines off: the daemon stops in order, then everything on them ends
    Stop {
        /// Machines
        #[arg(required = true)]
        node: Vec<String>,
        /// Stop only the daemon; containers go on
        #[arg(long)]
        daemon: bool,
    },
    /// Switch machines on, or start the daemon of a machine that is on
    Start {
        /// Machines
        #[arg(required = true)]
        node: Vec<String>,
    },
    /// Pull the plug: everything on the machines ends at once
    Kill {
        /// Machines
        #[arg(required = true)]
        node: Vec<String>,
        /// Kill only the daemon; containers go on
        #[arg(long)]
        daemon: bool,
    },
    /// Cut the cable of machines; packets are lost without a word
    Cut {
        /// Machines
        #[arg(required = true)]
        node: Vec<String>,
        /// Lose only what others send to them
        #[arg(long, conflicts_with = "out")]
        r#in: bool,
        /// Lose only what they send
        #[arg(long)]
        out: bool,
    },
    /// Mend the cable of machines
    Heal {
        /// Machines
        #[arg(required = true)]
        node: Vec<String>,
    },
    /// Pull all plugs and remove the machines with everything on them
    Rm,
}
