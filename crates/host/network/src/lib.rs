//! Applies a network plan to this machine and keeps it true.
//!
//! In: containers that come and go, ports to publish, services with their backends. Out: addresses and interfaces for
//! the runtime, and a bridge and an nf_tables table of our own in the daemon's network namespace, rebuilt when somebody
//! removes them. One thread owns all of it, so that changes that arrive together become one kernel transaction and none
//! can overtake another. Never forks, never polls, never touches anybody else's rules.
//!
//! ```text
//!  engine, agent ──► Network (handle) ──requests──► thread: wanted state ──► apply (nf_tables, links, conntrack)
//!                                                      ▲                              │
//!                                                      └── notifications ◄── kernel ◄─┘
//! ```

mod apply_netplan;
mod config;
mod endpoint;
mod error;
mod handle;
mod kernel;
mod open;
mod ports;
mod request;
mod show;
mod state_file;
mod status;
mod sysctl;
mod wanted;
mod worker;

pub use config::NetworkConfig;
pub use endpoint::{AttachRequest, Endpoint, Interface, NetworkMode, ServicePort};
pub use error::{AttachError, NetworkError, OpenError, PortError, PublishError};
pub use handle::Network;
pub use netplan::{Backend, BoundPort, PoolRange, PortRequest, Protocol};
