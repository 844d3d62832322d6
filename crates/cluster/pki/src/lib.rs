//! Keys, certificates and tokens of a swarm, and the files a node keeps them in.
//!
//! In: names, times, requests, secrets. Out: PEM, tokens, and what certificates say. What should be signed or renewed
//! is decided elsewhere (`membership::trust`); only [`ExternalAuthority`] talks to anybody. The authority's key lives
//! in the cluster object, a node's in a file that only the daemon can read.
//!
//! ```text
//! joiner: NodeKey ─request()─► manager: Signer ─ Authority or ExternalAuthority ─► chain ─verify()─► NodeFiles
//!         NodeKey + data keys ─► KeyFile (sealed by an UnlockKey when the swarm locks its managers)
//! ```

mod authority;
mod base36;
mod base64;
mod certificate;
mod external;
mod files;
mod identity;
mod key_file;
mod node_key;
mod renewal;
mod seal;
mod signer;
mod token;
mod trust_bundle;
mod unlock_key;

pub use authority::{Authority, GivenRootError, Issued, PkiError};
pub use base64::{decode as decode_base64, encode as encode_base64};
pub use certificate::{CertificateFacts, InvalidCertificate, facts, tls_info};
pub use external::{ExternalAuthority, ExternalError, ExternalUrls};
pub use files::{NodeFiles, SaveError};
pub use identity::{Identity, unit};
pub use key_file::{DataKey, DataKeys, KeyFile, KeyFileError, LockedKeyFile, StoredKey, WrongUnlockKey};
pub use node_key::{InvalidRequest, NodeKey, requested_key_digest};
pub use renewal::renewal_moment;
pub use signer::{SignError, Signer};
pub use token::{ForeignRoot, JoinToken, MalformedToken, new_secret};
pub use trust_bundle::{Untrusted, verify};
pub use unlock_key::{MalformedUnlockKey, UnlockKey};
