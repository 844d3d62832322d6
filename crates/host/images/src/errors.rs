//! How operations on images fail, one enum per operation, with Docker's wording where clients match it.
//!
//! In: causes. Out: texts and a [`Kind`] from which the API chooses its status. Never retries and never logs.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::ids::Digest;
use crate::ids::ParseDigestError;
use crate::platform::Platform;

/// The class of a failure, as the API's status codes know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such image, tag or repository: 404.
    NotFound,
    /// The state of the image forbids it: 409.
    Conflict,
    /// The request or the given data makes no sense: 400.
    InvalidParameter,
    /// The registry refused the credentials: 401 towards people, Docker answers 500.
    Unauthorized,
    /// This host or the registry failed: 500.
    System,
}

/// The texts of `error` and of all its sources, joined by `: `, as Docker prints them.
pub fn message(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A failed system call with the path it was about; prints as Go does: `write /x: no space left on device`.
#[derive(Debug, thiserror::Error)]
#[error("{call} {}: {}", path.display(), errno_text(error))]
pub struct FileError {
    /// What was tried, `open`, `write`, `rename`.
    pub call: &'static str,
    /// The file it was tried on.
    pub path: PathBuf,
    /// What the kernel said; part of the text above, hence not a source.
    pub error: io::Error,
}

impl FileError {
    /// For `map_err`: ties an I/O error to its call and path.
    pub(crate) fn at(call: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FileError {
        let path = path.into();
        move |error| FileError { call, path, error }
    }
}

/// The kernel's text for an error number without Rust's decoration, in lower case as Go and runc print it.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error")) {
        (Some(_), Some(end)) => text[..end].to_lowercase(),
        _ => text,
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder of the store is not usable.
    #[error(transparent)]
    File(#[from] FileError),
    /// `index.json` is damaged.
    #[error("parse image index `{}`", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
    /// `index.json` was written by a later version.
    #[error("image index has format {found}, newest known is {known}")]
    TooNew {
        /// The version in the file.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
}

/// The image is of another platform than the one asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "image with reference {reference} was found but its platform ({found}) does not match the specified platform \
     ({wanted})"
)]
pub struct WrongPlatform {
    /// What was asked for.
    pub reference: String,
    /// What is here.
    pub found: Platform,
    /// What was wanted.
    pub wanted: Platform,
}

/// No image could be found or read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Neither a tag, a digest nor an id says this. `reference` is familiar and has its tag.
    #[error("No such image: {reference}")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// Several ids begin like this.
    #[error("No such image: {prefix}: ambiguous id prefix")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// The text is no reference.
    #[error("{0}")]
    InvalidReference(String),
    /// The image is of another platform than the one asked for.
    #[error(transparent)]
    WrongPlatform(Box<WrongPlatform>),
    /// A stored file is gone or unreadable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A stored config is damaged.
    #[error("image {id} has a damaged config")]
    Damaged {
        /// The image.
        id: String,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
}

impl LookupError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            LookupError::NotFound { .. } => Kind::NotFound,
            LookupError::Ambiguous { .. } | LookupError::WrongPlatform(_) => Kind::NotFound,
            LookupError::InvalidReference(_) => Kind::InvalidParameter,
            LookupError::File(_) | LookupError::Damaged { .. } => Kind::System,
        }
    }
}

/// An image was not pulled, or a registry not asked.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The text is no reference that can be pulled.
    #[error("{0}")]
    InvalidReference(String),
    /// The registry has no such tag or digest.
    #[error("manifest for {reference} not found: {cause}")]
    ManifestUnknown {
        /// Familiar name with tag or digest.
        reference: String,
        /// The registry's own words, `manifest unknown: manifest unknown`.
        cause: String,
    },
    /// The registry has no such repository and says so.
    #[error("repository {name} not found: {cause}")]
    RepositoryUnknown {
        /// Familiar name.
        name: String,
        /// The registry's own words.
        cause: String,
    },
    /// The registry does not tell a missing repository from one we may not see.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {cause}"
    )]
    AccessDenied {
        /// Familiar name.
        name: String,
        /// The registry's own words, `denied: requested access to the resource is denied`.
        cause: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("{method} \"{url}\": {cause}")]
    Unauthorized {
        /// HTTP method as Go prints it, `Get` or `Head`.
        method: &'static str,
        /// What was asked.
        url: String,
        /// `unauthorized: authentication required` or `no basic auth credentials`.
        cause: String,
    },
    /// The registry could not be reached or hung up.
    #[error("{method} \"{url}\": {cause}")]
    Transport {
        /// HTTP method as Go prints it.
        method: &'static str,
        /// What was asked.
        url: String,
        /// Why, as `dial tcp 127.0.0.1:1: connect: connection refused`.
        cause: String,
        /// Whether another try may help.
        is_transient: bool,
    },
    /// The registry answered with an error of its own.
    #[error("{cause}")]
    Registry {
        /// HTTP status.
        status: u16,
        /// `code: message` of the registry, or `received unexpected HTTP status: 500 …`.
        cause: String,
    },
    /// An index has nothing for the platform.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoMatchingManifest {
        /// What was looked for.
        platform: Platform,
    },
    /// A media type that is no image.
    #[error("unsupported media type {0}")]
    UnsupportedMediaType(String),
    /// The oldest format, which Docker dropped as well.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed: \
         suggest the author of {0} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2"
    )]
    SchemaOne(String),
    /// A manifest, index or config is no valid JSON of its kind.
    #[error("error parsing {what}")]
    Parse {
        /// `manifest`, `manifest list` or `image config`.
        what: &'static str,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest, config or digest is well-formed but contradicts itself or us.
    #[error("{0}")]
    Invalid(String),
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// What came is not what was announced.
    #[error("{what} verification failed for digest {expected}: got {found}")]
    WrongDigest {
        /// `manifest`, `image config` or `filesystem layer`.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A layer could not be made from its archive.
    #[error("failed to register layer")]
    Layer(#[from] LayerError),
    /// A file of the store could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

impl PullError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            PullError::InvalidReference(_) => Kind::InvalidParameter,
            PullError::ManifestUnknown { .. }
            | PullError::RepositoryUnknown { .. }
            | PullError::AccessDenied { .. }
            | PullError::NoMatchingManifest { .. } => Kind::NotFound,
            PullError::Unauthorized { .. } => Kind::Unauthorized,
            _ => Kind::System,
        }
    }

    /// Whether another try may help: the network or the registry failed, not the request.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            PullError::Transport { is_transient, .. } => *is_transient,
            // Source: chosen, the statuses a proxy or an overloaded registry answers with.
            PullError::Registry { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// An image was not pushed, or credentials were not checked.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The text is no name that can be pushed.
    #[error("{0}")]
    InvalidReference(String),
    /// Nothing here has this name.
    #[error("An image does not exist locally with the tag: {0}")]
    NoSuchName(String),
    /// The registry wants credentials, or other ones.
    #[error("{cause}")]
    Unauthorized {
        /// The registry's own words, or what is missing.
        cause: String,
    },
    /// The registry does not allow it.
    #[error("{cause}")]
    Denied {
        /// The registry's own words, `denied: requested access to the resource is denied`.
        cause: String,
    },
    /// The credentials are wrong.
    #[error("login attempt to {url} failed with status: {status}")]
    WrongLogin {
        /// Where they were tried.
        url: String,
        /// What the registry answered.
        status: String,
    },
    /// The registry could not be reached, or failed.
    #[error(transparent)]
    Registry(PullError),
    /// The image is damaged or of another platform.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A file of the store could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry put other content in its place than was sent.
    #[error("registry says the manifest has digest {found}, it has {expected}")]
    WrongDigest {
        /// What was sent.
        expected: Digest,
        /// What the registry says.
        found: Digest,
    },
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

impl PushError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            PushError::InvalidReference(_) => Kind::InvalidParameter,
            PushError::NoSuchName(_) => Kind::NotFound,
            PushError::Unauthorized { .. } | PushError::Denied { .. } | PushError::WrongLogin { .. } => {
                Kind::Unauthorized
            }
            PushError::Lookup(e) => e.kind(),
            _ => Kind::System,
        }
    }
}

impl From<PullError> for PushError {
    fn from(error: PullError) -> PushError {
        match error {
            PullError::Unauthorized { cause, .. } => PushError::Unauthorized { cause },
            PullError::AccessDenied { cause, .. } => PushError::Denied { cause },
            PullError::ManifestUnknown { cause, .. } | PullError::RepositoryUnknown { cause, .. } => {
                PushError::Registry(PullError::Registry { status: 404, cause })
            }
            other => PushError::Registry(other),
        }
    }
}

/// A layer's archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file of the layer could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive is damaged or cut short.
    #[error("read layer archive")]
    Archive(#[source] io::Error),
    /// An entry would leave the layer's folder or makes no sense.
    #[error("invalid entry `{path}`: {because}")]
    Entry {
        /// The entry's name as it stands in the archive.
        path: String,
        /// What is wrong with it.
        because: &'static str,
    },
    /// A folder would take the place of something else, or the other way round, which the caller forbade.
    #[error(
        "cannot overwrite {} \"{path}\" with {} \"{base}\"",
        if *was_folder { "directory" } else { "non-directory" },
        if *was_folder { "non-directory" } else { "directory" }
    )]
    ChangesKind {
        /// Where.
        path: String,
        /// The folder that the archive is unpacked to.
        base: String,
        /// Whether a folder is there now.
        was_folder: bool,
    },
    /// The unpacked content is not what the config promises.
    #[error("layer has diff id {found}, the image config says {expected}")]
    WrongDiffId {
        /// What the config says.
        expected: Digest,
        /// What the content is.
        found: Digest,
    },
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

/// An archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive holds no image in a known layout.
    #[error("{0}")]
    Invalid(String),
    /// A JSON file in the archive is wrong.
    #[error("parse `{file}` of the archive")]
    Parse {
        /// Its name.
        file: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The stream broke off or is damaged.
    #[error("read archive")]
    Archive(#[source] io::Error),
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// Content and digest differ.
    #[error("content of `{file}` has digest {found}, expected {expected}")]
    WrongDigest {
        /// The file in the archive.
        file: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// An index in the archive has nothing for the platform.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoMatchingManifest {
        /// What was looked for.
        platform: Platform,
    },
    /// A layer could not be made.
    #[error("failed to register layer")]
    Layer(#[from] LayerError),
    /// A file of the store could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

impl LoadError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            LoadError::File(_) | LoadError::Layer(LayerError::File(_)) | LoadError::Stopped => Kind::System,
            LoadError::NoMatchingManifest { .. } => Kind::NotFound,
            _ => Kind::InvalidParameter,
        }
    }
}

/// An address was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing answered, or not to its end.
    #[error(transparent)]
    Transport(PullError),
    /// The answer is no success.
    #[error("failed to GET {url} with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// What was answered, `404 Not Found`.
        status: String,
    },
    /// A file of the store could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An image was not made of another one.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// The text is no reference that can be given to an image.
    #[error("{0}")]
    InvalidReference(String),
    /// The image below is not there or damaged.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// What should be in the layer could not be read, or the layer not be written.
    #[error("write layer")]
    Write(#[source] io::Error),
    /// No further layer fits.
    #[error("max depth exceeded")]
    TooDeep,
    /// The layer could not be made.
    #[error("failed to register layer")]
    Layer(#[from] LayerError),
    /// A file of the store could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

impl DeriveError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            DeriveError::InvalidReference(_) => Kind::InvalidParameter,
            DeriveError::Lookup(e) => e.kind(),
            _ => Kind::System,
        }
    }
}

/// A root file system was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The text is no reference that can be given to an image.
    #[error("{0}")]
    InvalidReference(String),
    /// A `changes` line is not understood.
    #[error("{0}")]
    InvalidChange(String),
    /// The image that another is to be made of can't be read.
    #[error("read image")]
    Base(#[source] Box<LookupError>),
    /// The stream broke off or is damaged.
    #[error("read archive")]
    Archive(#[source] io::Error),
    /// The layer could not be made.
    #[error("failed to register layer")]
    Layer(#[from] LayerError),
    /// A file of the store could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The thread doing the work ended without a result.
    #[error("image worker stopped")]
    Stopped,
}

impl ImportError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            ImportError::InvalidReference(_) | ImportError::InvalidChange(_) | ImportError::Archive(_) => {
                Kind::InvalidParameter
            }
            ImportError::Base(_)
            | ImportError::Layer(LayerError::File(_))
            | ImportError::File(_)
            | ImportError::Stopped => Kind::System,
            ImportError::Layer(_) => Kind::InvalidParameter,
        }
    }
}

/// A tag was not set.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// The new name is no reference, or carries a digest.
    #[error("{0}")]
    InvalidReference(String),
    /// There is no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The index could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl TagError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            TagError::InvalidReference(_) => Kind::InvalidParameter,
            TagError::Lookup(e) => e.kind(),
            TagError::File(_) => Kind::System,
        }
    }
}

/// An image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The last name of an image that a container was made from.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {container} \
         is using its referenced image {image}"
    )]
    ReferenceInUse {
        /// The name as it was given.
        reference: String,
        /// Short id of a container.
        container: String,
        /// Short id of the image.
        image: String,
    },
    /// The image itself may not go.
    #[error("conflict: unable to delete {image} ({}) - {because}", if *is_hard { "cannot be forced" } else { "must be forced" })]
    Conflict {
        /// Short id of the image.
        image: String,
        /// Whether `force` would not help either.
        is_hard: bool,
        /// Why, in Docker's words.
        because: String,
    },
    /// The index could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RemoveError {
    /// The class for a status code.
    pub fn kind(&self) -> Kind {
        match self {
            RemoveError::Lookup(e) => e.kind(),
            RemoveError::ReferenceInUse { .. } | RemoveError::Conflict { .. } => Kind::Conflict,
            RemoveError::File(_) => Kind::System,
        }
    }
}
