//! The shell around the decisions of a manager: reads the store, proposes writes, wakes up when a decision asked for it.
//!
//! ```text
//!  api ──► operations (services, nodes, cluster) ──┐                      ┌─► here, when this manager leads
//!  nodes ──► sessions, reports, certificates ──────┼─► perform(Operation) ┤
//!  managers ──► join, leave ───────────────────────┘                      └─► `Forward` to the leader, then catch up
//!
//!  at the leader: execute ─► raft::Consensus ─► store::Store on every manager ─► events, sessions' assignments
//!                 control loop, leases, roles, root rotation: while it leads, afresh each time
//! ```
//!
//! It never decides about services, nodes or trust itself: what is written after a change comes from `control::step`, what
//! a request may do from `control::request`, who is there and who manages from `membership`.

mod attach;
mod attend;
mod certify;
mod clock;
mod cluster;
mod contact;
mod control_loop;
mod error;
mod events;
mod found;
mod join;
mod judge;
mod leading;
mod leave;
mod logs;
mod manager;
mod members;
mod network_keys;
mod networks;
mod nodes;
mod perform;
mod propose;
mod reports;
mod rotation;
mod routes;
mod services;
mod session;
mod sessions;
mod shown;
mod tasks;
#[cfg(test)]
mod testing;
mod transport;
mod unlock;
mod vitals;

pub use certify::Credentials;
pub use error::{ClockOff, Code, ManagerError, ManagerFailed};
pub use events::{EventStream, SwarmEvent};
pub use found::Founding;
pub use logs::{IncompleteLogs, LogReader};
pub use manager::{Manager, ManagerConfig};
pub use session::{Origin, Session};
pub use shown::Shown;
pub use unlock::Unlock;
pub use wire::forward::{ClusterUpdate, CreatedService, RegistryAuthFrom, ServiceUpdate};
