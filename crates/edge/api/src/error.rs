//! The only place where an error becomes a status code and Docker's words.
//!
//! In: errors of the engine, the images, the networks, the swarm, and of the request itself. Out: status and
//! `{"message": …}`. Never logs; the dispatcher logs what is our fault.

use std::error::Error;
use std::io;

use agent::SwarmError;
use docker::filters::FilterError;
use engine::{EngineError, ErrorKind};
use http::StatusCode;
use manager::{Code, ManagerError};

use crate::answer::{Answer, json_with};

/// Why a request is refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// No such route.
    #[error("page not found")]
    NoSuchPage,
    /// Something the request names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// What the request asks for is nobody's to ask here.
    #[error("{0}")]
    Forbidden(String),
    /// A part of the API that we do not have.
    #[error("{method} {path} is not supported by this engine: {reason}")]
    NotSupported { method: String, path: &'static str, reason: &'static str },
    /// A field or mode that we do not have.
    #[error("{0}")]
    Unimplemented(String),
    /// The body is longer than we read.
    #[error("request body too large: at most {most} bytes")]
    TooLarge { most: usize },
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// An answer could not be written as JSON.
    #[error("write the answer")]
    Serialise(#[source] serde_json::Error),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    #[error(transparent)]
    Lookup(#[from] images::LookupError),
    #[error(transparent)]
    Pull(#[from] images::PullError),
    #[error(transparent)]
    Load(#[from] images::LoadError),
    #[error(transparent)]
    Import(#[from] images::ImportError),
    #[error(transparent)]
    Build(Box<build::BuildError>),
    #[error(transparent)]
    Push(#[from] images::PushError),
    #[error(transparent)]
    Tag(#[from] images::TagError),
    #[error(transparent)]
    Remove(#[from] images::RemoveError),
}

impl From<build::BuildError> for ApiError {
    fn from(error: build::BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl ApiError {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn serialise(source: serde_json::Error) -> Self {
        Self::Serialise(source)
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Filter(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NoSuchPage | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NotSupported { .. } | Self::Unimplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Serialise(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Engine(error) => of_engine(error.kind()),
            Self::Manager(error) => of_manager(error.code()),
            Self::Swarm(error) => of_swarm(error),
            Self::Lookup(error) => of_images(error.kind()),
            Self::Pull(error) => of_images(error.kind()),
            Self::Load(error) => of_images(error.kind()),
            Self::Import(error) => of_images(error.kind()),
            Self::Build(error) if error.is_invalid() => StatusCode::BAD_REQUEST,
            Self::Build(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Push(images::PushError::WrongLogin { .. }) => StatusCode::UNAUTHORIZED,
            Self::Push(error) => of_images(error.kind()),
            Self::Tag(error) => of_images(error.kind()),
            Self::Remove(error) => of_images(error.kind()),
        }
    }

    /// The text a client sees: the error and its causes, joined as Go joins them.
    pub(crate) fn message(&self) -> String {
        chain(self)
    }

    /// The answer a client gets.
    pub(crate) fn answer(&self) -> Answer {
        let status = self.status();
        if status == StatusCode::NOT_MODIFIED {
            return crate::answer::empty(status);
        }
        let body = docker::ErrorBody { message: self.message() };
        json_with(status, &body).unwrap_or_else(|_| crate::answer::empty(status))
    }
}

/// An error and its causes, joined by `: `; a cause whose text is already there is not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    as_go_writes(text)
}

/// The kernel's words as Go writes them, which scripts look for: `no space left on device` instead of
/// `No space left on device (os error 28)`.
pub(crate) fn as_go_writes(mut text: String) -> String {
    const MARK: &str = " (os error ";
    let mut from = 0;
    while let Some(mark) = text[from..].find(MARK).map(|at| from + at) {
        let digits = text[mark + MARK.len()..].split(')').next().unwrap_or_default();
        let words = digits.parse().map(|number| io::Error::from_raw_os_error(number).to_string());
        let end = mark + MARK.len() + digits.len() + 1;
        let begin = words
            .ok()
            .filter(|words| text[..end.min(text.len())].ends_with(words))
            .map(|words| end - words.len());
        from = match begin {
            Some(begin) => {
                let plain = text[begin..mark].to_lowercase();
                text.replace_range(begin..end, &plain);
                begin + plain.len()
            }
            None => mark + MARK.len(),
        };
    }
    text
}

fn of_engine(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Source: moby, `errdefs/http_helpers.go` and the mapping of gRPC codes beside it.
fn of_manager(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::Aborted | Code::DeadlineExceeded | Code::ResourceExhausted => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn of_swarm(error: &SwarmError) -> StatusCode {
    match error {
        SwarmError::NotInSwarm
        | SwarmError::IsWorker
        | SwarmError::Locked
        | SwarmError::LeaveLocked
        | SwarmError::CertificatesExpired
        | SwarmError::JoinTimeout
        | SwarmError::ManagerNotReady
        | SwarmError::AlreadyInSwarm
        | SwarmError::NotPartOfSwarm
        | SwarmError::LeaveNeedsForce { .. } => StatusCode::SERVICE_UNAVAILABLE,
        SwarmError::InvalidRequest { .. } | SwarmError::MalformedUnlockKey => StatusCode::BAD_REQUEST,
        SwarmError::WrongUnlockKey => StatusCode::UNAUTHORIZED,
        SwarmError::NotLocked => StatusCode::CONFLICT,
        SwarmError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        SwarmError::Refused { code, .. } => of_manager(*code),
        SwarmError::ForeignRoot { .. } | SwarmError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn of_images(kind: images::Kind) -> StatusCode {
    match kind {
        images::Kind::NotFound => StatusCode::NOT_FOUND,
        images::Kind::Conflict => StatusCode::CONFLICT,
        images::Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        // Docker answers 500 here, and clients match on the text.
        images::Kind::Unauthorized | images::Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_written_as_go_writes_them() {
        let check = |text: &str, expect: &str| assert_eq!(as_go_writes(text.to_owned()), expect);
        check(
            "commit: I/O error: No space left on device (os error 28)",
            "commit: I/O error: no space left on device",
        );
        check(
            "No such file or directory (os error 2): and then (os error 28)",
            "no such file or directory: and then (os error 28)",
        );
        check("its own words (os error 28)", "its own words (os error 28)");
        check("cut off (os error ", "cut off (os error ");
        check("(os error x) (os error 99999999999)", "(os error x) (os error 99999999999)");
    }
}
