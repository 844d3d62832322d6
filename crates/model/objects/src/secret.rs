//! A secret or a config: content that tasks are granted.
//!
//! In and out: Docker's `Secret` and `Config` with every field of API 1.51. A secret's content is never in what the API
//! shows, and never in debug output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::json::{object, shape};
use crate::{ConfigId, Driver, Labels, SecretId};

/// Content, in base 64 as the API has it; debug output only tells how long it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(
    /// Base 64.
    pub String,
);

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Content({} characters)", self.0.len())
    }
}

object! {
    /// A secret of the swarm.
    pub struct Secret {
        always {
            /// Id of the secret.
            #[serde(rename = "ID")]
            pub id: SecretId,
            /// What a user gave.
            pub spec: SecretSpec,
        }
    }
}

object! {
    /// A config of the swarm.
    pub struct Config {
        always {
            /// Id of the config.
            #[serde(rename = "ID")]
            pub id: ConfigId,
            /// What a user gave.
            pub spec: ConfigSpec,
        }
    }
}

shape! {
    /// What a user gave for a secret.
    pub struct SecretSpec {
        /// The content; empty when a driver has it.
        pub data: Content,
        /// Whoever has the content.
        pub driver: Option<Driver>,
        /// Whoever fills in templates in the content.
        pub templating: Option<Driver>,
        always {
            /// Unique name.
            pub name: String,
            /// Labels of the secret.
            pub labels: Labels,
        }
    }

    /// What a user gave for a config.
    pub struct ConfigSpec {
        /// The content.
        pub data: Content,
        /// Whoever fills in templates in the content.
        pub templating: Option<Driver>,
        always {
            /// Unique name.
            pub name: String,
            /// Labels of the config.
            pub labels: Labels,
        }
    }
}

impl Secret {
    /// As Docker's API shows it: without its content.
    pub fn to_api(&self) -> serde_json::Value {
        let spec = SecretSpec { data: Content::default(), ..self.spec.clone() };
        crate::json::api_value(&Self { spec, ..self.clone() })
    }
}

impl Config {
    /// As Docker's API shows it.
    pub fn to_api(&self) -> serde_json::Value {
        crate::json::api_value(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_content_to_nobody() {
        let text = r#"{"ID":"s1","Version":{"Index":3},"Spec":{"Name":"key","Labels":null,"Data":"dG9wIHNlY3JldA=="}}"#;
        let secret: Secret = serde_json::from_str(text).unwrap();
        assert_eq!(secret.spec.data.0, "dG9wIHNlY3JldA==");
        assert!(!format!("{secret:?}").contains("dG9w"));
        assert!(!secret.to_api().to_string().contains("dG9w"));
        let kept: Secret = serde_json::from_str(&serde_json::to_string(&secret).unwrap()).unwrap();
        assert_eq!(kept, secret);
    }
}
