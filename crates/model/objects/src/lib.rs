//! The nouns of a swarm: cluster, node, service, task, network, secret, config; ids, times, validation.
//!
//! Every object has an id, a version that the store stamps, a spec (what a user asked for) and what the swarm made of
//! it. Specs read and write Docker's JSON of API 1.51 as it is, so that a request body becomes a spec and a spec becomes
//! a response without a conversion in between. What Docker's API does not show lives in a field named `internal`.
//!
//! Never reads a clock, draws a random number, or looks anything up.

mod cluster;
mod constraint;
mod container;
mod id;
mod json;
mod meta;
mod names;
mod network;
mod node;
mod random_names;
mod secret;
mod service;
mod task;
mod task_spec;
mod time;
pub mod validate;

pub use cluster::*;
pub use constraint::*;
pub use container::*;
pub use id::*;
pub use meta::*;
pub use network::*;
pub use node::*;
pub use random_names::*;
pub use secret::*;
pub use service::*;
pub use task::*;
pub use task_spec::*;
pub use time::*;
