//! What callers say and get: configuration, options of each operation, results.
//!
//! In: values from flags and requests. Out: plain data. Never does anything itself.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use docker::{AuthConfig, ImageConfig};
use futures_util::Stream;

use crate::ids::{Digest, ImageId};
use crate::platform::Platform;

/// Bytes of an archive as they arrive. An error in the stream makes the operation fail and leave nothing.
pub type TarStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How registries are reached; may be replaced while running.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Registries reached without verified TLS, or without TLS: `host`, `host:port`, or a CIDR such as
    /// `10.0.0.0/8` (compared with the addresses the host resolves to). Loopback is always one of them.
    pub insecure: Vec<String>,
    /// Base URLs tried in order before Docker Hub, such as `https://mirror.example`.
    pub mirrors: Vec<String>,
    /// Folders holding `<host[:port]>/*.crt`, extra certificate authorities per registry.
    /// `/etc/docker/certs.d` and `/etc/skep/certs.d` in a daemon.
    pub certs_dirs: Vec<PathBuf>,
}

/// What to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Familiar or canonical name with optional tag and digest; without either, `latest`.
    pub reference: String,
    /// Which build of a multi-platform image; `None` is this machine's.
    pub platform: Option<Platform>,
    /// Credentials of the user; `None` asks anonymously.
    pub auth: Option<AuthConfig>,
}

/// A pulled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// The reference in familiar form, with tag or digest: what events and messages show.
    pub reference: String,
    /// The digest the registry has under that name: of the index if it is one.
    pub digest: Digest,
    /// Whether anything changed here.
    pub is_new: bool,
}

/// What to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Familiar or canonical name with a tag; without one, all tags of the repository.
    pub reference: String,
    /// Only an image of this platform; `None` takes what is there.
    pub platform: Option<Platform>,
    /// Credentials of the user; `None` asks anonymously.
    pub auth: Option<AuthConfig>,
}

/// One pushed tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its name in familiar form.
    pub reference: String,
    /// The tag alone.
    pub tag: String,
    /// The digest of the manifest that the registry has now.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// What to make of an imported root file system.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// `name[:tag]`; `None` leaves the image without a name.
    pub reference: Option<String>,
    /// The comment in history; Docker's default is `Imported from -`.
    pub message: Option<String>,
    /// Dockerfile instructions (`CMD`, `ENV`, …), one each.
    pub changes: Vec<String>,
    /// `None` is this machine's.
    pub platform: Option<Platform>,
}

/// What [`crate::Store::image`] knows: enough to make a container.
#[derive(Clone, Debug)]
pub struct Image {
    /// The image.
    pub id: ImageId,
    /// What it wants to run.
    pub config: ImageConfig,
    /// What it was built for.
    pub platform: Platform,
    /// Folders of the layers, top first, as an overlay mount wants them. Empty for an image without layers.
    pub layers: Vec<PathBuf>,
    /// Familiar names with tags, sorted.
    pub tags: Vec<String>,
}

/// A container that needs an image to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's full id.
    pub container: String,
    /// Whether it runs now: only a running container forbids removal by force.
    pub is_running: bool,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also images without a name that another image was built on.
    pub all: bool,
    /// Whether to count how much of each image others share.
    pub shared_size: bool,
    /// Whether to count containers.
    pub containers: bool,
    /// All must hold; within one, any value.
    pub filters: ListFilter,
}

/// Filters of the list; an empty list filters nothing.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Patterns `name[:tag]` as shell globs over familiar names.
    pub reference: Vec<String>,
    /// `key` or `key=value`; all must match.
    pub label: Vec<String>,
    /// `Some(true)`: only images without a tag.
    pub dangling: Option<bool>,
    /// Created before this image.
    pub before: Vec<String>,
    /// Created after this image.
    pub since: Vec<String>,
    /// Created before this time, in Unix seconds.
    pub until: Option<i64>,
}

/// One step of a removal, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This familiar name is gone. `image` is what it named (for the event).
    Untagged {
        /// Familiar name with tag or digest.
        reference: String,
        /// The image it named.
        image: ImageId,
    },
    /// This image is gone.
    Image(ImageId),
    /// This layer is gone, by its chain id.
    Layer(Digest),
}
