//! Containers, volumes, execs, health probes and events of this machine.
//!
//! ```text
//!  api, agent ──► Engine ──► container/ one turn at a time per container, any number at once
//!                   │            │ spec_build/: record + image -> runtime::Spec
//!                   │            ▼
//!                   │         shim (one process per container) ──► exit ──► supervise: record, network, restart
//!                   ├──► state: redb, one table per noun, several commits in one transaction
//!                   ├──► events: the last 256 and whoever listens
//!                   └──► watch: container states for the agent
//! ```
//!
//! Crash-only: what is on disk and in the exec root is enough to go on; [`Engine::open`] adopts what runs. Nothing here
//! knows about services: a task's container is one with certain labels.

mod adopt;
mod cgroup_parents;
mod config;
mod container;
mod engine;
mod error;
mod events;
mod exec;
mod files;
mod health;
mod machine;
mod networks;
mod shim_group;
mod spec_build;
mod state;
mod swarm_networks;
mod volume;
mod watch;

pub use config::{EngineConfig, OpenFiles};
pub use container::archive::{PutOptions, Streamed};
pub use container::attach::{AttachInput, AttachOptions, AttachOutput, Attached};
pub use container::commit::CommitRequest;
pub use container::list::ListOptions;
pub use container::logs::{LogStream, LogsOptions};
pub use container::remove::RemoveOptions;
pub use container::stats::{StatsOptions, StatsStream};
pub use container::stop::StopOptions;
pub use container::wait::{WaitCondition, Waiter};
pub use engine::{Counts, Engine};
pub use error::{EngineError, ErrorKind, InvalidRequest, StateError, WrongState};
pub use events::{EventQuery, EventStream};
pub use exec::start::{ExecStartOptions, ExecStarted};
pub use swarm_networks::{Attaching, Hold, Place, PlaceError, PlaceWish, SwarmNetworks};
pub use watch::{ContainerState, StateChange, StateChanges, Status};
