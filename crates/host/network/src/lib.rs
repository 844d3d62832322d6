//! Applies a network plan to this machine and keeps it true.
//!
//! In: containers that come and go, ports to publish, services with their backends. Out: addresses and interfaces for
//! the runtime, and bridges and an nf_tables table of our own in the daemon's network namespace, rebuilt when somebody
//! removes them. One thread owns all of it, so that changes that arrive together become one kernel transaction and none
//! can overtake another. Never forks, never polls, never touches anybody else's rules.
//!
//! ```text
//!  engine, agent ──► Network (handle) ──requests──► thread: wanted state ──► apply (nf_tables, links, conntrack)
//!                                                      ▲                              │
//!                                                      └── notifications ◄── kernel ◄─┘
//! ```

mod apply_netplan;
mod apply_table;
mod built_in;
mod config;
mod connect;
mod create;
mod encryption;
mod endpoint;
mod error;
mod handle;
mod ingress;
mod kernel;
mod local_names;
mod mesh;
mod names;
mod names_file;
mod netns;
mod open;
mod overlay;
mod port_owner;
mod ports;
mod record;
mod registry;
mod request;
mod sandbox;
mod show;
mod state_file;
mod status;
mod swarm;
mod sysctl;
mod task_side;
mod told;
mod vips;
mod wanted;
mod worker;

pub use config::NetworkConfig;
pub use encryption::Encryption;
pub use endpoint::{
    AttachRequest, Attachment, ConnectRequest, Endpoint, EndpointAddress, Interface, MacvlanParent,
    NetworkFacts, NetworkJoin, SandboxMode, ServicePort,
};
pub use error::{
    AttachError, ConnectError, CreateError, NetworkError, OpenError, PortError, PublishError, RemoveError,
    UnknownNetwork,
};
pub use handle::Network;
pub use mesh::Mesh;
pub use names::{ContainerNames, of_endpoint as names_of_endpoint};
pub use names_file::NamesDir;
pub use netns::Namespaces;
pub use netplan::bridge_options::OptionError;
pub use netplan::ipam::{AskedSubnet, IpamError};
pub use netplan::macvlan_options::{MacvlanMode, MacvlanOptionError};
pub use netplan::{Backend, BoundPort, PoolRange, PortRequest, Protocol};
pub use overlay::{Overlays, underlay_of};
pub use port_owner::{PortOwner, foreign_owner};
pub use record::NetworkSpec;
pub use task_side::plug_task;
pub use vips::Vips;
