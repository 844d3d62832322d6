//! What nodes say to each other: methods, messages and refusals.
//!
//! A method is a type that names its request, its answer and who may call it; one file holds one conversation. Messages
//! are JSON: a reader skips fields it does not know, and a field added later has a default, so that neighbouring
//! versions understand each other. Never sends anything itself and checks no caller: that is `rpc`'s.

pub mod attach;
pub mod forward;
mod hidden;
pub mod join;
pub mod logs;
pub mod managers;
mod method;
pub mod network;
mod refusal;
pub mod session;

pub use hidden::Hidden;
pub use method::{Callers, Method, RawMethod, Streaming};
pub use refusal::{Code, Refusal};
