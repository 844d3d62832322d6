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
mod archive_write;
mod changes;
mod codec;
mod commit;
mod context;
mod derive;
mod diff;
mod disk;
mod download;
mod errors;
mod extract;
mod ids;
mod import;
mod index;
mod layer;
mod load;
mod manifest;
mod options;
mod pack;
mod place;
mod platform;
mod progress;
mod pull;
mod push;
mod query;
mod register;
mod registry;
mod remove;
mod save;
mod shelf;
mod spool;
mod spooled;
mod store;
mod tar_header;
mod unpack;
mod view;

pub use archive::{Archive, Entry, Kind as EntryKind};
pub use archive_write::ArchiveWriter;
pub use commit::CommitOptions;
pub use context::{Fetched, Scratch, decompressed, digest_of};
pub use derive::DeriveOptions;
pub use diff::{LayerWriter, diff, plain};
pub use errors::{
    DeriveError, FetchError, FileError, ImportError, Kind, LayerError, LoadError, LookupError, OpenError,
    PullError, PushError, RemoveError, TagError, WrongPlatform, message,
};
pub use extract::{ExtractOptions, extract};
pub use ids::{Digest, ImageId, ParseDigestError};
pub use options::{
    ContainerUse, Image, ImportOptions, ListFilter, ListOptions, PullOptions, Pulled, PushOptions, Pushed,
    RegistryConfig, Removed, TarStream,
};
pub use pack::{PackError, What, pack};
pub use platform::{ParsePlatformError, Platform};
pub use progress::ProgressSender;
pub use store::Store;
pub use unpack::normal;
pub use view::{FileKind, Found, Located, Meta, View, join};
