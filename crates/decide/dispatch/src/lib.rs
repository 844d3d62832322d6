//! What a node should know: its tasks with what they need, and how that changed since it was last told.
//!
//! ```text
//!   commit ──► concerned(change) ──► the sessions of these nodes ──► Told::news(store) ──► Assignments ──► agent
//! ```
//!
//! In: the store, and what the node was told. Out: everything at first, then the difference. Of tasks it compares states, not
//! commits: a session that misses some is still told all. Networks are too large for that: what may be different on them is
//! marked ([`Marks`]), and looked up. Never waits, and knows no session.

mod concerned;
mod networks;
mod told;

pub use concerned::{concerned, managers};
pub use networks::{Marks, Touched, data_path, peers};
pub use told::Told;
