//! One manager step: which decision runs after which change, and when to wake up.
//!
//! ```text
//!   changes ──► Dirty ──► step: orchestrate ──► allocate ──► schedule ──► Decision { writes, wake_at, reasons }
//!                 ▲                         (one draft)                        │
//!                 └───────────── commit, or refusal ◄── the shell proposes ────┘
//! ```
//!
//! In: the store, what changed in it since the last step, the time, a source of ids. Out: writes, and when to be asked
//! again. The shell proposes the writes ([`Parts`] splits them into log entries), notes the changes they caused and steps again until a step writes nothing; then
//! it sleeps until a change or `wake_at`. Production and the simulator run the same step.
//!
//! Never does anything itself, and remembers nothing that it could not work out again from the store.

mod addresses;
pub mod attach;
mod dirty;
pub mod networks;
mod parts;
mod queue;
pub mod request;
mod starved;
mod step;

pub use dirty::Dirty;
pub use parts::Parts;
pub use step::{Decision, Reason, step};
