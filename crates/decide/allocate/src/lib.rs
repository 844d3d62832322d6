//! Decides ports and addresses.
//!
//! In: a service and what others have. Out: its endpoint, or who is in the way. Never moves a port that a service has.

mod ports;

pub use ports::{FIRST_DYNAMIC_PORT, LAST_DYNAMIC_PORT, PortError, endpoint, is_allocated};
