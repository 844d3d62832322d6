//! Events: what `GET /events` streams, one JSON object per line.
//!
//! In: what happened. Out: the message with its legacy fields. Never filters: see [`crate::filters`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use objects::Timestamp;

/// What happened to what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Legacy, containers and images only: same as `action`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Legacy, containers and images only: same as `actor.id`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Legacy, containers only: the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`, `daemon`, `node`, `service`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `health_status: healthy`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local` or `swarm`.
    pub scope: String,
    /// Unix seconds.
    pub time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The object's id, or its name where it has no id (volumes, pulled images).
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels of the object, and what the action adds (`name`, `image`, `exitCode`, …).
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl EventMessage {
    /// A message of this host, legacy fields filled as dockerd does.
    ///
    /// Source: moby, `daemon/events/events.go` `PublishMessage`.
    pub fn local(
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Self {
        Self::new("local", kind, action, id, attributes, now)
    }

    /// A message about an object of the swarm.
    pub fn swarm(
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Self {
        Self::new("swarm", kind, action, id, attributes, now)
    }

    fn new(
        scope: &str,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Self {
        let legacy = matches!(kind, "container" | "image");
        let from = match kind {
            "container" => attributes.get("image").cloned().unwrap_or_default(),
            _ => String::new(),
        };
        Self {
            status: if legacy { action.to_owned() } else { String::new() },
            id: if legacy { id.to_owned() } else { String::new() },
            from,
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: scope.to_owned(),
            time: now.0.div_euclid(1_000_000_000),
            time_nano: now.0,
        }
    }
}
