//! A node's session: what it should know and run goes out, what it runs comes in.

use std::sync::Arc;

use ipnet::IpNet;
use objects::{
    ConfigId, NetworkId, Node, NodeDescription, NodeId, SecretId, Task, TaskId, TaskStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::logs::LogWish;
use crate::network::{NetworkKey, NetworkNews, NetworkView};
use crate::{Callers, Hidden, Method, Streaming};

/// Statuses that one call may carry. Source: swarmkit, `agent/agent.go` (1024 per call).
pub const REPORTS_PER_CALL: usize = 1024;

/// Names one session of one node; 25 characters as an id has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

/// Opens a session. The node is ready from the first item on, and the session ends with the stream.
pub struct OpenSession;

impl Streaming for OpenSession {
    const NAME: &'static str = "session";
    const CALLERS: Callers = Callers::Node;
    type Request = OpenRequest;
    type Item = SessionMessage;
}

/// What a node says when it comes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenRequest {
    /// What it is.
    pub description: NodeDescription,
    /// Where other nodes reach it, without a port; empty: where the call came from.
    pub address: String,
    /// Where its overlay traffic arrives; `None`: at `address`.
    pub data_path_address: Option<String>,
    /// Its time.
    pub now: Timestamp,
    /// Networks that its machine has by itself: routes, addresses, resolvers. Networks of the swarm keep clear of them.
    pub own_networks: Vec<IpNet>,
    /// Names what its kernel holds of encrypted networks; zero: it cannot encrypt. See [`crate::network::PeerView`].
    pub encryption_generation: u64,
    /// The session it had before, if its daemon is the same: it goes on with that one's name.
    pub resumes: Option<SessionId>,
}

/// What a manager says in a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "OneOf")]
pub enum SessionMessage {
    /// The first item.
    Hello(Box<Hello>),
    /// Some of what [`Hello`] said is different now.
    Changed(Box<Changed>),
    /// What to run.
    Assignments(Assignments),
    /// Whose logs a client of a manager wants.
    Logs(Box<LogWish>),
    /// The last item: the manager ends the session.
    Bye(Bye),
    /// Something that a later version says; to be skipped.
    Other,
}

/// How a message is read: a kind that this version does not know leaves every field empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct OneOf {
    hello: Option<Box<Hello>>,
    changed: Option<Box<Changed>>,
    assignments: Option<Assignments>,
    logs: Option<Box<LogWish>>,
    bye: Option<Bye>,
}

impl From<OneOf> for SessionMessage {
    fn from(read: OneOf) -> Self {
        match read {
            OneOf { hello: Some(hello), .. } => Self::Hello(hello),
            OneOf { changed: Some(changed), .. } => Self::Changed(changed),
            OneOf { assignments: Some(assignments), .. } => Self::Assignments(assignments),
            OneOf { logs: Some(wish), .. } => Self::Logs(wish),
            OneOf { bye: Some(bye), .. } => Self::Bye(bye),
            _ => Self::Other,
        }
    }
}

/// What a node is told when it comes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The session's name.
    pub session: SessionId,
    /// The node as the swarm knows it. Without the field that only managers know.
    pub node: Node,
    /// Whom to turn to when this manager is lost.
    pub managers: Vec<ManagerPeer>,
    /// What to trust, PEM.
    pub root: String,
    /// How to prove that it is alive.
    pub heartbeat: Heartbeat,
    /// Keys of encrypted networks, the oldest first: all are taken, the middle one is used for what is sent.
    pub network_keys: Vec<NetworkKey>,
}

/// What is different; `None` stayed as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// The node as the swarm knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    /// Whom to turn to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managers: Option<Vec<ManagerPeer>>,
    /// What to trust, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How to prove that it is alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// Keys of encrypted networks, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_keys: Option<Vec<NetworkKey>>,
    /// Whether the node should ask for a new certificate now (a new role, or a new root).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub renew: bool,
}

/// A manager and how much it should be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerPeer {
    /// Its id.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
    /// Higher is chosen more often. Source: swarmkit, `manager/dispatcher/dispatcher.go` (10 each).
    pub weight: u32,
}

/// How a node proves that it is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Between two proofs, in milliseconds.
    pub period_ms: u64,
    /// The node's own key, 32 bytes in base 64.
    pub key: Hidden,
    /// The manager's time.
    pub now: Timestamp,
}

/// Why a manager ends a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bye {
    /// For people.
    pub reason: String,
    /// Whether the node is no longer one of the swarm: it stops its tasks and does not come back.
    pub is_removed: bool,
}

/// What a node should run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Assignments {
    /// Exactly this, and nothing else.
    Complete(Assigned),
    /// Differences to what was sent before in this session.
    Incremental {
        /// New or changed.
        update: Assigned,
        /// No longer assigned: their containers go.
        #[serde(default)]
        remove: Removed,
    },
}

/// Things that a node is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assigned {
    /// What to run.
    pub tasks: Vec<Assignment>,
    /// What its tasks were granted; kept in memory alone.
    pub secrets: Vec<Secret>,
    /// What its tasks refer to.
    pub configs: Vec<Config>,
    /// Networks that it uses from now on, or that changed as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkView>,
    /// What is different about networks that it was told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_news: Vec<NetworkNews>,
}

/// Things that a node must let go of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Removed {
    /// Tasks.
    pub tasks: Vec<TaskId>,
    /// Secrets.
    pub secrets: Vec<SecretId>,
    /// Configs.
    pub configs: Vec<ConfigId>,
    /// Networks that it uses no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkId>,
}

/// A task with what only the node that runs it may know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub task: Arc<Task>,
    /// The registry's credentials as the API's header has them; empty for none. Kept in memory only.
    #[serde(default)]
    pub registry_auth: Hidden,
}

/// A secret that a task on the node was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Secret {
    /// Its id.
    pub id: SecretId,
    /// Its name.
    pub name: String,
    /// Its content, in base 64.
    pub data: Hidden,
}

/// A config that a task on the node refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Its id.
    pub id: ConfigId,
    /// Its name.
    pub name: String,
    /// Its content, in base 64.
    pub data: String,
}

/// Tells what a node's tasks are doing.
pub struct Report;

impl Method for Report {
    const NAME: &'static str = "report";
    const CALLERS: Callers = Callers::Node;
    type Request = ReportRequest;
    type Response = Done;
}

/// What a node's tasks are doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportRequest {
    /// In which session.
    pub session: SessionId,
    /// At most [`REPORTS_PER_CALL`].
    pub statuses: Vec<(TaskId, TaskStatus)>,
}

/// It was done; there is nothing to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Announces that the daemon stops on purpose.
pub struct Goodbye;

impl Method for Goodbye {
    const NAME: &'static str = "goodbye";
    const CALLERS: Callers = Callers::Node;
    type Request = GoodbyeRequest;
    type Response = Done;
}

/// How the daemon stops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoodbyeRequest {
    /// Which session ends.
    pub session: SessionId,
    /// Whether it comes back.
    pub farewell: Farewell,
}

/// Whether a node that goes comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Farewell {
    /// It leaves the swarm: its tasks move at once.
    Leaving,
    /// Its daemon restarts; its tasks run on and must not be moved for that long.
    Hold {
        /// In milliseconds from now.
        ms: u64,
    },
    /// Nothing is known about it.
    #[default]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_says_is_skipped() {
        let text = r#"{"Sing":{"song":[1]}}"#;
        assert_eq!(serde_json::from_str::<SessionMessage>(text).unwrap(), SessionMessage::Other);
        let text = r#"{"Bye":{"reason":"tired","mood":3}}"#;
        let bye = Bye { reason: "tired".into(), is_removed: false };
        assert_eq!(serde_json::from_str::<SessionMessage>(text).unwrap(), SessionMessage::Bye(bye));
        assert_eq!(
            serde_json::from_str::<Farewell>(r#"{"kind":"Dance","to":1}"#).unwrap(),
            Farewell::Unknown
        );
    }

    #[test]
    fn a_message_reads_back_as_it_was() {
        let task = Assignment { task: Arc::new(Task::default()), registry_auth: Hidden::from("pass") };
        let messages = [
            SessionMessage::Hello(Box::default()),
            SessionMessage::Logs(Box::default()),
            SessionMessage::Changed(Box::new(Changed { renew: true, ..Changed::default() })),
            SessionMessage::Assignments(Assignments::Complete(Assigned {
                tasks: vec![task],
                ..Assigned::default()
            })),
            SessionMessage::Assignments(Assignments::Incremental {
                update: Assigned::default(),
                remove: Removed { tasks: vec![TaskId::from("t")], ..Removed::default() },
            }),
        ];
        for message in messages {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<SessionMessage>(&text).unwrap(), message);
            assert!(!format!("{message:?}").contains("pass"), "{message:?}");
        }
    }
}
