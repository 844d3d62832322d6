//! The swarm's certificate authority and join tokens.
//!
//! In: names, times, secrets. Out: PEM, tokens, and the parts of certificates that the API shows. Never talks to
//! anybody and keeps no state: keys live where the caller puts them (the authority's in the cluster object, a node's
//! in a file only the daemon can read).

mod authority;
mod base36;
mod base64;
mod certificate;
mod files;
mod token;

pub use authority::{Authority, Issued, PkiError, Role};
pub use base64::{decode as decode_base64, encode as encode_base64};
pub use certificate::{CertificateFacts, InvalidCertificate, facts};
pub use files::{NodeFiles, SaveError};
pub use token::{JoinToken, MalformedToken, new_secret};
