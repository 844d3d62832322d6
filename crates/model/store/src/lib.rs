//! The swarm's state in memory: tables, indexes, transactions, change events.
//!
//! ```text
//!   control::step ──reads──► Store ◄──apply(index, now, writes)── the replicated log
//!        │                     │                                        ▲
//!        └── Draft ── writes ──┼────────────► propose ──────────────────┘
//!                              └── changes ──► whoever must act on them
//! ```
//!
//! In: writes in the order of the log. Out: the same tables on every manager, and what changed. Never reads a clock: the
//! time of a write comes with it.

mod apply;
mod draft;
mod find;
mod object;
mod shelves;
mod snapshot;
mod tables;
mod task_table;

pub use apply::ApplyError;
pub use draft::Draft;
pub use find::FindError;
pub use object::{Change, Kind, Object, Write};
pub use tables::Store;
