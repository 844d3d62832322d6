//! State machines of one task, one container and its health.
//!
//! Pure: what happened and the time go in, the next step and when to look again come out. Nothing here waits or acts.

pub mod attachment;
pub mod health;
pub mod restart;
pub mod task;
