//! The names of one network and their addresses, as bytes that many processes read where they lie.
//!
//! In: [`Rows`], on the side that decides. Out: a table, on the side that answers. Never knows what a name stands for.
//!
//! ```text
//!  netplan ─► Rows ─► to_table ─► file ─► mapped by every shim of the network ─► View ─► addresses
//! ```

mod layout;
mod rows;
mod view;

pub use layout::FORMAT;
pub use rows::Rows;
pub use view::{Addresses, ReadTableError, View};
