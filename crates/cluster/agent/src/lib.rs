//! This node's part in a swarm: becoming a member, running what a manager assigned, leaving.
//!
//! ```text
//!   api ──► SwarmNode (init, join, unlock, leave, local state)
//!              │ a member's parts, which share `ties`
//!              ├─► Agent ◄── dispatcher: one session with any manager ◄──► manager on this node, or over rpc
//!              │     │ wanted tasks (on disk) against containers found
//!              │     ▼
//!              │   engine
//!              ├─► pulse (proof of life), renewal (certificate), describe (what this node says of itself)
//!              └─► keep_manager: a manager::Manager and its server, while the certificate says so
//! ```

mod address;
mod attachments;
#[cfg(test)]
mod bench;
mod container_spec;
mod containers;
mod credentials;
mod describe;
mod dispatcher;
mod encryption;
mod entering;
#[cfg(test)]
mod fake_manager;
mod farewell;
mod found;
mod grants;
mod joining;
mod keep_manager;
mod keys;
mod known_managers;
mod link;
mod local;
mod local_state;
mod member;
mod node;
mod own_networks;
mod pace;
mod placeholders;
mod publish_logs;
mod pull;
mod pulse;
mod reconcile;
mod renewal;
mod requests;
mod room;
mod serving;
mod state_file;
mod ties;
mod unfinished;
mod worker;

pub use local_state::LocalState;
pub use node::{SwarmNode, SwarmNodeConfig};
pub use publish_logs::{Entries, LogSource};
pub use requests::{InitRequest, JoinRequest, LocalNodeState, Peer, SwarmError, UnlockRequest};
