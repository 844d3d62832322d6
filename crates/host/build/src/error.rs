//! Why a build failed, in Docker's words.
//!
//! In: causes. Out: texts, and the class of failure from which the API chooses its status.

use dockerfile::{ExpandError, ParseError};
use engine::EngineError;
use images::{DeriveError, FetchError, FileError, LayerError, LookupError, PullError, TagError};

/// A build that made no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request, the context or an instruction makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The Dockerfile cannot be read.
    #[error("failed to parse {name}")]
    Syntax {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: ParseError,
    },
    /// An instruction of the Dockerfile is wrong.
    #[error(transparent)]
    Parse(ParseError),
    /// Variables of an instruction cannot be put in.
    #[error("failed to process {word:?}")]
    Expand {
        /// The word.
        word: String,
        /// What is wrong.
        #[source]
        source: ExpandError,
    },
    /// Files are missing or cannot be taken.
    #[error("{instruction} failed: {because}")]
    Copy {
        /// `COPY` or `ADD`.
        instruction: &'static str,
        /// In Docker's words.
        because: String,
    },
    /// A command of the Dockerfile failed.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// As the step's history shows it.
        command: String,
        /// What it returned.
        code: i64,
    },
    /// The context cannot be unpacked.
    #[error("Error processing tar file")]
    Context(#[source] LayerError),
    /// An address was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A base image was not pulled.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// An image is damaged.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A step's image was not made.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The image did not get its name.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A container failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of the build cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of a context or an image cannot be read.
    #[error("read {what}")]
    Read {
        /// What it was.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl BuildError {
    /// Whether the request is to blame.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            BuildError::Invalid(_)
                | BuildError::Syntax { .. }
                | BuildError::Parse(_)
                | BuildError::Context(_)
                | BuildError::Expand { .. }
        )
    }

    /// What a failed command returned; 0 for anything else. The client ends with it.
    pub fn exit_code(&self) -> i64 {
        match self {
            BuildError::Command { code, .. } => *code,
            _ => 0,
        }
    }
}
