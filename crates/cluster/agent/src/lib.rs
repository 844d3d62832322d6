//! This node's part in a swarm: becoming a member, running what a manager assigned, leaving.
//!
//! ```text
//!   api ──► SwarmNode (init, leave, local state) ──► manager::Manager (when this node is one)
//!                │                                        │ session: assignments ▼, statuses ▲
//!                └──────────────► Agent ◄─────────────────┘
//!                                  │ wanted tasks (on disk) against containers found
//!                                  ▼
//!                               engine
//! ```

mod address;
mod container_spec;
mod containers;
mod describe;
mod found;
mod keep_manager;
mod link;
mod local;
mod node;
mod placeholders;
mod publish;
mod pull;
mod reconcile;
mod requests;
mod state_file;
mod worker;

pub use node::{LocalState, SwarmNode, SwarmNodeConfig};
pub use requests::{InitRequest, JoinRequest, LocalNodeState, Peer, SwarmError};
