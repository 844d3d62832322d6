//! Text that must not show up in logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that is sent as it is, but whose debug output shows nothing of it: tokens, keys, credentials.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// The text itself. What is done with it is the caller's care.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

#[cfg(test)]
mod tests {
    use super::Hidden;

    #[test]
    fn hidden_text_is_sent_but_not_shown() {
        let hidden = Hidden::from("s3cret");
        assert_eq!(serde_json::to_string(&hidden).unwrap(), "\"s3cret\"");
        assert!(!format!("{hidden:?}").contains("s3cret"));
    }
}
