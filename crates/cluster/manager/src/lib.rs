//! The shell around the decisions of a manager: reads the store, proposes writes, wakes up when a decision asked for it.
//!
//! ```text
//!  api ──► operations (services, nodes, tasks, cluster) ──┐
//!  agent ──► sessions (descriptions, task statuses) ──────┼─► raft::Consensus ──► store::Store
//!  control loop (control::step) ──────────────────────────┘          │
//!       ▲                     changes, in order                      │
//!       └──────────────── events, assignments ◄──────────────────────┘
//! ```
//!
//! It never decides about services itself: what is written after a change comes from `control::step`, what a request
//! may do from `control::request`.

mod clock;
mod cluster;
mod control_loop;
mod error;
mod events;
mod found;
mod manager;
mod nodes;
mod propose;
mod services;
mod session;
mod tasks;

pub use cluster::ClusterUpdate;
pub use error::{Code, ManagerError, ManagerFailed};
pub use events::{EventStream, SwarmEvent};
pub use found::Founding;
pub use manager::{Manager, ManagerConfig};
pub use services::{CreatedService, RegistryAuthFrom, ServiceUpdate};
pub use session::{Assignment, Assignments, Session};
