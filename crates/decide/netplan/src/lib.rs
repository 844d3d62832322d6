//! Decides the bridges, addresses and rules that one machine should have.
//!
//! In: the wanted networks, endpoints and published ports, and what of the machine limits the choice. Out: values (an
//! address, a claim, a set of rules, what changed). Never touches the kernel: `host/network` applies what is decided.
//!
//! ```text
//!  routes, pools ──► ipam::settle, subnet::choose ──► addresses::AddressPool ──► address of an endpoint
//!  port requests ──► claims::PortClaims ──► published::Published ──► Changes ─┐
//!  bridges ─────────────────────────────► firewall::Firewall ────────────────┴─► host/network
//!  networks of the swarm, containers ──► names ──► rows of a table of names
//! ```

pub mod addresses;
pub mod bridge_options;
pub mod claims;
pub mod encryption;
pub mod firewall;
pub mod ipam;
pub mod macvlan_options;
pub mod mesh;
pub mod names;
pub mod overlay;
pub mod port;
pub mod published;
pub mod subnet;
pub mod table;
pub mod vip;
pub mod way_out;

pub use addresses::AddressPool;
pub use claims::{ClaimError, PortClaims};
pub use encryption::{EncryptionNeeds, EncryptionPlan};
pub use firewall::Firewall;
pub use mesh::{LinkSubnet, MeshPlan, TaskSide};
pub use overlay::{MacAddress, OverlayPlan, Underlay};
pub use port::{Backend, BoundPort, HostPort, PortRequest, Protocol};
pub use published::{PortChange, Published, StuckFlows};
pub use subnet::PoolRange;
pub use vip::{VipChange, VipPlan};
