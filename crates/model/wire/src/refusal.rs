//! What a node answers when it does not do what it was asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of a refusal, by the names gRPC gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// The request itself is wrong.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// No such object.
    NotFound,
    /// Another object has that name.
    AlreadyExists,
    /// The caller may not do that.
    PermissionDenied,
    /// Too much or too often.
    ResourceExhausted,
    /// The state of the swarm forbids it.
    FailedPrecondition,
    /// What was asked for changed in the meantime.
    Aborted,
    /// Not something the other side does.
    Unimplemented,
    /// A mistake in the other side.
    Internal,
    /// Try again later or elsewhere.
    Unavailable,
    /// The caller did not show who it is.
    Unauthenticated,
    /// Everything else; also a code that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

/// A refusal: nothing was changed, unless the message says so.
///
/// Its text is the message alone; what shows it to people adds `rpc error: code = … desc = …` where Docker does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its class.
    #[serde(default)]
    pub code: Code,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// `host:port` of the manager to ask instead, when the caller came to the wrong one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

impl Refusal {
    /// A refusal without another address.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), leader: None }
    }

    /// The same, naming the manager to ask instead.
    #[must_use]
    pub fn ask(mut self, leader: impl Into<String>) -> Self {
        self.leader = Some(leader.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_later_version_is_still_understood() {
        let text = r#"{"code":"Singed","message":"too hot","leader":null,"more":1}"#;
        let read: Refusal = serde_json::from_str(text).unwrap();
        assert_eq!(read, Refusal::new(Code::Unknown, "too hot"));
    }

    #[test]
    fn codes_keep_the_names_of_grpc() {
        let text = serde_json::to_string(&Refusal::new(Code::FailedPrecondition, "x").ask("a:1")).unwrap();
        assert_eq!(text, r#"{"code":"FailedPrecondition","message":"x","leader":"a:1"}"#);
    }
}
