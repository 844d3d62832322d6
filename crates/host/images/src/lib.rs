//! Images of one host: pulled, loaded or imported, kept by content, unpacked once per layer.
//!
//! In: references, credentials, tar streams. Out: image ids, Docker's JSON shapes, and for the runtime the
//! directories of an image's layers. Never starts a container and never decides which image is wanted.
//!
//! ```text
//!  registry ──> pull ──┐                       ┌─> list, inspect, history (read only)
//!  tar ──> load/import ├─> blobs/ ─> unpack ─> l/ ─> index.json ─┼─> image(): layer directories
//!                      └─ (nothing is visible before the index) ─┴─> remove ─> garbage
//! ```
//!
//! On disk, below the root given to [`Store::open`]:
//! `index.json` names every image, tag and layer and is replaced atomically; `blobs/sha256/` holds manifests,
//! configs and compressed layers by digest; `l/<short>` holds unpacked layers under names short enough for an
//! overlay mount of 120 layers; `tmp/` holds what is not finished and is emptied on open.

mod archive;
mod changes;
mod codec;
mod disk;
mod download;
mod errors;
mod ids;
mod import;
mod index;
mod layer;
mod load;
mod manifest;
mod options;
mod place;
mod platform;
mod progress;
mod pull;
mod query;
mod register;
mod registry;
mod remove;
mod shelf;
mod spool;
mod spooled;
mod store;
mod unpack;

pub use errors::{
    FileError, ImportError, Kind, LayerError, LoadError, LookupError, OpenError, PullError, RemoveError,
    TagError, message,
};
pub use ids::{Digest, ImageId, ParseDigestError};
pub use options::{
    ContainerUse, Image, ImportOptions, ListFilter, ListOptions, PullOptions, Pulled, RegistryConfig,
    Removed, TarStream,
};
pub use platform::{ParsePlatformError, Platform};
pub use progress::ProgressSender;
pub use store::Store;
