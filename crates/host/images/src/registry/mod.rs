//! Talks to registries: which address, with which protection, as whom.
//!
//! In: a reference, credentials, the configuration. Out: documents and streams of blobs, or errors in Docker's words.
//! Never stores anything and never decides which build of an image is wanted.

mod auth;
mod endpoint;
mod failure;
mod reach;
mod session;
mod upload;

pub(crate) use endpoint::Registry;
pub(crate) use reach::{check_login, reach};
pub(crate) use session::{Found, Session};
pub(crate) use upload::Begun;
