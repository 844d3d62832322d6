//! The daemon's flags. Names, forms and defaults are dockerd's where it has the same thing.

use clap::{ArgAction, Args};
use std::path::PathBuf;

/// `skep daemon [OPTIONS]`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DaemonFlags {
    /// Daemon socket(s) to listen on [default: unix:///var/run/docker.sock]
    #[arg(short = 'H', long = "host", value_name = "list")]
    pub(crate) hosts: Vec<String>,
    /// Root directory of persistent state [default: /var/lib/skep]
    #[arg(long, value_name = "dir")]
    pub(crate) data_root: Option<PathBuf>,
    /// Root directory for execution state files [default: /run/skep]
    #[arg(long, value_name = "dir")]
    pub(crate) exec_root: Option<PathBuf>,
    /// Path to use for daemon PID file [default: /run/skep.pid]
    #[arg(short, long, value_name = "file")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Daemon configuration file [default: /etc/skep/daemon.json]
    #[arg(long, value_name = "file")]
    pub(crate) config_file: Option<PathBuf>,
    /// Group for the unix socket [default: docker, when it exists]
    #[arg(short = 'G', long, value_name = "group")]
    pub(crate) group: Option<String>,
    /// Set key=value labels to the daemon
    #[arg(long = "label", value_name = "list")]
    pub(crate) labels: Vec<String>,
    /// Advertise user-defined resource (KIND=value)
    #[arg(long = "node-generic-resource", value_name = "list")]
    pub(crate) node_generic_resources: Vec<String>,
    /// Set parent cgroup for all containers [default: /skep]
    #[arg(long, value_name = "cgroup")]
    pub(crate) cgroup_parent: Option<String>,
    /// Default address or interface to advertise to the swarm
    #[arg(long, value_name = "ip")]
    pub(crate) swarm_default_advertise_addr: Option<String>,
    /// Network
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Registries
    #[command(flatten)]
    pub(crate) registries: RegistryFlags,
    /// Logging
    #[command(flatten)]
    pub(crate) logging: LogFlags,
    /// TLS of TCP sockets
    #[command(flatten)]
    pub(crate) tls: TlsFlags,
}

/// Flags of the default network and the resolver.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkFlags {
    /// Name of the default bridge [default: skep0]
    #[arg(short, long, value_name = "name")]
    pub(crate) bridge: Option<String>,
    /// Address of the default bridge with its prefix length
    #[arg(long, value_name = "cidr")]
    pub(crate) bip: Option<String>,
    /// Default address pools for node specific local networks (base=10.10.0.0/16,size=24)
    #[arg(long = "default-address-pool", value_name = "pool")]
    pub(crate) default_address_pools: Vec<String>,
    /// Set the MTU of the default bridge [default: 1500]
    #[arg(long, value_name = "int")]
    pub(crate) mtu: Option<u32>,
    /// DNS server to use
    #[arg(long, value_name = "list")]
    pub(crate) dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt", value_name = "list")]
    pub(crate) dns_opts: Vec<String>,
    /// DNS search domains to use
    #[arg(long, value_name = "list")]
    pub(crate) dns_search: Vec<String>,
}

/// Flags on registries.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryFlags {
    /// Enable insecure registry communication (host, host:port or CIDR); loopback always is
    #[arg(long = "insecure-registry", value_name = "list")]
    pub(crate) insecure_registries: Vec<String>,
    /// Preferred registry mirror
    #[arg(long = "registry-mirror", value_name = "list")]
    pub(crate) registry_mirrors: Vec<String>,
}

/// Flags on logs: the daemon's and the containers'.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogFlags {
    /// Enable debug mode
    #[arg(short = 'D', long, action = ArgAction::SetTrue)]
    pub(crate) debug: bool,
    /// Set the logging level (debug, info, warn, error, fatal) [default: info]
    #[arg(short, long, value_name = "level")]
    pub(crate) log_level: Option<String>,
    /// Set the logging format (text, json) [default: text]
    #[arg(long, value_name = "format")]
    pub(crate) log_format: Option<String>,
    /// Default driver for container logs (json-file, none) [default: json-file]
    #[arg(long, value_name = "driver")]
    pub(crate) log_driver: Option<String>,
    /// Default log driver options for containers
    #[arg(long = "log-opt", value_name = "map")]
    pub(crate) log_opts: Vec<String>,
}

/// Flags on TLS for TCP sockets.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsFlags {
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub(crate) tls: bool,
    /// Use TLS and verify the remote
    #[arg(long)]
    pub(crate) tlsverify: bool,
    /// Trust certs signed only by this CA
    #[arg(long, value_name = "file")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file
    #[arg(long, value_name = "file")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Path to TLS key file
    #[arg(long, value_name = "file")]
    pub(crate) tlskey: Option<PathBuf>,
}
