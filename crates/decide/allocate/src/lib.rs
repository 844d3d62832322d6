//! Decides ports, subnets and addresses.
//!
//! ```text
//!   network's spec ──► subnets ──► Network with subnets, gateways, VNI
//!   store ──► Addresses (what is taken) ──► attach ──► VIPs of services, addresses of tasks, of nodes on ingress
//!   service ──► ports ──► published ports
//! ```
//!
//! In: what is asked for, and what others have. Out: what it gets, or who is in the way. Everything follows from the store: a
//! new leader goes on without a memory of its own. Never moves what somebody has.

mod addresses;
mod attach;
mod ports;
mod subnets;

pub use addresses::{Addresses, NoAddress};
pub use attach::{AttachError, attachments, networks, node_address, virtual_ips};
pub use ports::{FIRST_DYNAMIC_PORT, LAST_DYNAMIC_PORT, PortError, endpoint, is_allocated};
pub use subnets::{NetworkError, network};
