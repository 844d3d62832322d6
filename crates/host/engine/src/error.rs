//! What can go wrong in the engine, in Docker's words.
//!
//! Each variant's text is what a client sees; [`EngineError::kind`] says which class of answer it is. Never chooses a
//! status code: that is the API's.

use std::io;
use std::path::PathBuf;

/// The class of an [`EngineError`], as Docker's `errdefs` name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong (400).
    InvalidParameter,
    /// Nobody may do that (403).
    Forbidden,
    /// The thing doesn't exist (404).
    NotFound,
    /// The state of the thing doesn't allow it (409).
    Conflict,
    /// It is so already (304).
    NotModified,
    /// We know what is meant and don't support it (501).
    NotImplemented,
    /// The engine is going down (503).
    Unavailable,
    /// Everything else (500).
    System,
}

/// Why the engine refused or could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No container has this id, name or id prefix.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// An id prefix fits several containers, execs or images.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousPrefix(String),
    /// No exec has this id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No image has this name or id; the text is the reference as the client gave it, with a tag.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// No network has this name or id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// Something else that the request names doesn't exist: Docker's text.
    #[error("{0}")]
    NotFound(String),
    /// Docker's text for what it answers with 500.
    #[error("{0}")]
    Refused(String),
    /// A network could not be made.
    #[error(transparent)]
    NetworkCreate(#[from] network::CreateError),
    /// A network could not be removed.
    #[error(transparent)]
    NetworkRemove(#[from] network::RemoveError),
    /// A container could not be connected to a network, or disconnected from it.
    #[error(transparent)]
    NetworkConnect(#[from] network::ConnectError),
    /// The name belongs to another container.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The wanted name, without slash.
        name: String,
        /// The id of the container that has it.
        holder: String,
    },
    /// The request is wrong: the text says how, in Docker's words.
    #[error("{0}")]
    Invalid(InvalidRequest),
    /// Asked for something that we don't do.
    #[error("{0} is not supported by this engine")]
    NotSupported(String),
    /// A swarm gives a container no place on its network.
    #[error("{0}")]
    NotAttached(String),
    /// The container's state doesn't allow it: Docker's text.
    #[error("{0}")]
    WrongState(WrongState),
    /// The container runs already, or is stopped already.
    #[error("container is already in the wanted state")]
    NotModified,
    /// The volume is mounted by containers.
    #[error("remove {name}: volume is in use - [{}]", .holders.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Ids of the containers.
        holders: Vec<String>,
    },
    /// The container's process could not be started; `exit_code` is what `docker run` ends with (125, 126 or 127).
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: {text}"
    )]
    Start {
        /// What the runtime said.
        text: String,
        /// 127 when the command doesn't exist, 126 when it can't be run, else 128.
        exit_code: i64,
    },
    /// An exec's process could not be started.
    #[error("OCI runtime exec failed: exec failed: {text}")]
    ExecStart {
        /// What the runtime said.
        text: String,
        /// 127 when the command doesn't exist, else 126.
        exit_code: i64,
    },
    /// The network could not be set up.
    #[error("failed to set up container networking: {0}")]
    Network(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The image store failed.
    #[error("image store")]
    Images(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container runs, but its shim has not answered since the engine was opened. It is asked again and again.
    #[error("shim of container {0} does not answer")]
    ShimSilent(String),
    /// The container's shim could not be reached.
    #[error("container shim")]
    Shim(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container's cgroup could not be changed or read.
    #[error("container cgroup")]
    Cgroup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container's log could not be read.
    #[error("container log")]
    Logs(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container's log driver has nothing to read.
    #[error("configured logging driver does not support reading")]
    LogsUnreadable,
    /// Our own state on disk failed.
    #[error("engine state")]
    State(#[source] StateError),
    /// A file or directory of the engine.
    #[error("{what} `{path}`")]
    File {
        /// What was tried, such as `create`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A path that is not there in a container. Source: moby, `daemon/archive.go`, `containerFileNotFound`.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchFile {
        /// The path as the client gave it.
        path: String,
        /// The container as the client named it.
        container: String,
    },
    /// A container's files could not be shown.
    #[error("files of container")]
    View(#[source] runtime::view::ViewError),
    /// An archive could not be unpacked in a container.
    #[error(transparent)]
    Extract(images::LayerError),
    /// The container didn't end in time after it was killed.
    #[error("tried to kill container, but did not receive an exit event")]
    NotKilled,
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// A request that can't be honoured as it is. The text is the message a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRequest(pub String);

/// An operation that the container's state forbids. The text is the message a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongState(pub String);

/// Why the engine's database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It could not be opened (another daemon has it, or the disk failed).
    #[error("open `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::DatabaseError>,
    },
    /// A transaction failed.
    #[error("commit engine state")]
    Commit(#[source] std::sync::Arc<redb::Error>),
    /// A record is not what this version wrote.
    #[error("{noun} record `{key}` is damaged")]
    Damaged {
        /// Which table.
        noun: &'static str,
        /// Which record.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record comes from a newer version.
    #[error("{noun} record `{key}` has format {found}, newest known is {known}")]
    TooNew {
        /// Which table.
        noun: &'static str,
        /// Which record.
        key: String,
        /// What it says.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// The thread that writes has ended.
    #[error("engine state is closed")]
    Closed,
}

impl EngineError {
    /// Which class of answer this is.
    pub fn kind(&self) -> ErrorKind {
        use EngineError as E;
        match self {
            E::NoSuchContainer(_)
            | E::NoSuchExec(_)
            | E::NoSuchImage(_)
            | E::NoSuchVolume(_)
            | E::NoSuchNetwork(_)
            | E::NotFound(_)
            | E::NoSuchFile { .. } => ErrorKind::NotFound,
            E::NotAttached(_) => ErrorKind::Forbidden,
            E::Network(error) if is_not_given(error.downcast_ref()) => ErrorKind::Forbidden,
            E::NetworkCreate(error) => of_create(error),
            E::NetworkRemove(error) => of_remove(error),
            E::NetworkConnect(error) => of_connect(error),
            // What a client sends is wrong, or what it meets; only our own thread's end is our fault.
            E::Extract(images::LayerError::Stopped) => ErrorKind::System,
            E::Extract(_) => ErrorKind::InvalidParameter,
            E::AmbiguousPrefix(_) | E::Invalid(_) => ErrorKind::InvalidParameter,
            E::NameInUse { .. } | E::WrongState(_) | E::VolumeInUse { .. } => ErrorKind::Conflict,
            E::NotSupported(_) => ErrorKind::NotImplemented,
            E::NotModified => ErrorKind::NotModified,
            // Docker answers 400 when the command of a container can't be run, and 500 when an exec's can't.
            E::Start { exit_code: 126 | 127, .. } => ErrorKind::InvalidParameter,
            E::ExecStart { .. } => ErrorKind::InvalidParameter,
            E::LogsUnreadable => ErrorKind::NotImplemented,
            E::ShuttingDown => ErrorKind::Unavailable,
            E::Start { .. }
            | E::Refused(_)
            | E::Network(_)
            | E::Images(_)
            | E::ShimSilent(_)
            | E::Shim(_)
            | E::Cgroup(_)
            | E::Logs(_)
            | E::State(_)
            | E::File { .. }
            | E::View(_)
            | E::NotKilled => ErrorKind::System,
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        EngineError::Invalid(InvalidRequest(text.into()))
    }

    pub(crate) fn wrong_state(text: impl Into<String>) -> Self {
        EngineError::WrongState(WrongState(text.into()))
    }
}

/// Source of the classes: moby, `daemon/libnetwork/error.go` and `daemon/network.go`.
fn of_create(error: &network::CreateError) -> ErrorKind {
    use network::{CreateError as E, IpamError, MacvlanOptionError, OptionError};
    match error {
        E::NoName
        | E::NotABridge(_)
        | E::NoParent(_)
        | E::Macvlan(MacvlanOptionError::Mode(_))
        | E::Ipam(IpamError::Invalid(_) | IpamError::Several)
        | E::Option(OptionError::Malformed { .. }) => ErrorKind::InvalidParameter,
        E::Predefined(_)
        | E::OnlyOne(_)
        | E::LinkTaken { .. }
        | E::ParentTaken { .. }
        | E::Ipam(IpamError::Overlap) => ErrorKind::Forbidden,
        E::NoDriver(_) | E::Ipam(IpamError::NoSubnet) => ErrorKind::NotFound,
        E::Exists(_) => ErrorKind::Conflict,
        E::Option(OptionError::NotSupported { .. })
        | E::NoIpvlan
        | E::Macvlan(MacvlanOptionError::NoParent) => ErrorKind::NotImplemented,
        E::Random(_) | E::State(_) | E::Apply(_) => ErrorKind::System,
    }
}

fn of_remove(error: &network::RemoveError) -> ErrorKind {
    use network::RemoveError as E;
    match error {
        E::Unknown(_) => ErrorKind::NotFound,
        E::Predefined(_) | E::InUse { .. } => ErrorKind::Forbidden,
        E::State(_) | E::Apply(_) => ErrorKind::System,
    }
}

/// Whether a container has no business on a network of the swarm.
fn is_not_given(error: Option<&network::AttachError>) -> bool {
    matches!(error, Some(network::AttachError::NotGiven { .. }))
}

fn of_connect(error: &network::ConnectError) -> ErrorKind {
    use network::{AttachError, ConnectError as E};
    match error {
        E::Connected { .. } => ErrorKind::Forbidden,
        E::NotRunning(_) => ErrorKind::Conflict,
        E::Attach(AttachError::Unknown(_)) => ErrorKind::NotFound,
        E::Attach(AttachError::Address { .. } | AttachError::NotGiven { .. }) => ErrorKind::Forbidden,
        E::Attach(AttachError::Mac(_)) => ErrorKind::InvalidParameter,
        E::NotConnected { .. } | E::Attach(_) => ErrorKind::System,
    }
}

impl From<StateError> for EngineError {
    fn from(source: StateError) -> Self {
        EngineError::State(source)
    }
}

impl From<InvalidRequest> for EngineError {
    fn from(source: InvalidRequest) -> Self {
        EngineError::Invalid(source)
    }
}
