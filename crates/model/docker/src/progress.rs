//! Progress of pull, load and import: JSON objects, one per line.
//!
//! In: what a transfer reports. Out: lines the CLI renders as bars. Never draws the bar itself: the CLI does.

use serde::{Deserialize, Serialize};

/// One line of a progress stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressMessage {
    /// Free text (load, build).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// `Downloading`, `Pull complete`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Bytes done; present and empty where a status has none.
    #[serde(rename = "progressDetail", default, skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The rendered bar older clients show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Short layer id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it failed; the stream ends after it.
    #[serde(rename = "errorDetail", default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// Same text as `error_detail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Structured results (`{"ID": …}` of a build).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes done and to do; 0 is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub current: i64,
    /// Bytes in all.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub total: i64,
}

/// A failure inside a stream whose status line has long been sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// HTTP-like code, 0 for none.
    #[serde(default, skip_serializing_if = "crate::shape::is_default")]
    pub code: i64,
    /// The text.
    pub message: String,
}

impl ProgressMessage {
    /// A status without an id (`Status: Downloaded newer image for x`).
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// A status about one layer, with an empty detail as dockerd sends it.
    pub fn layer(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            status: Some(text.into()),
            progress_detail: Some(ProgressDetail::default()),
            ..Self::default()
        }
    }

    /// Bytes of one layer.
    pub fn bytes(id: impl Into<String>, text: impl Into<String>, current: i64, total: i64) -> Self {
        Self { progress_detail: Some(ProgressDetail { current, total }), ..Self::layer(id, text) }
    }

    /// Free text (load).
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// The failure that ends a stream.
    pub fn error(text: impl Into<String>) -> Self {
        let message = text.into();
        Self {
            error_detail: Some(ErrorDetail { code: 0, message: message.clone() }),
            error: Some(message),
            ..Self::default()
        }
    }
}
