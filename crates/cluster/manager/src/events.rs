//! The swarm's part of `GET /events`: services, nodes, networks, secrets, configs; created, updated, removed.
//!
//! In: applied changes, in order. Out: events with Docker's attributes. Tasks have no events.

use std::collections::{BTreeMap, VecDeque};

use objects::{Node, Service, Timestamp};
use raft::{ChangeFeed, FeedItem};
use store::{Change, Kind, Object};

use crate::manager::Manager;

/// One event with `scope: "swarm"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmEvent {
    /// `service`, `node`, `network`, `secret` or `config`.
    pub kind: &'static str,
    /// `create`, `update` or `remove`.
    pub action: &'static str,
    /// Id of the object.
    pub id: String,
    /// `name`, and for updates `replicas.old`, `replicas.new`, …
    pub attributes: BTreeMap<String, String>,
    /// When the change was decided.
    pub time: Timestamp,
}

/// Events from the moment of the subscription on.
pub struct EventStream {
    feed: ChangeFeed,
    ready: VecDeque<SwarmEvent>,
}

impl EventStream {
    /// The next event; `None` when the manager stops. A reader that falls too far behind misses events.
    pub async fn next(&mut self) -> Option<SwarmEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.feed.next().await? {
                FeedItem::Commit(commit) => {
                    self.ready.extend(commit.changes.iter().filter_map(|change| event(change, commit.now)));
                }
                FeedItem::Resync => tracing::warn!("a reader of events was too slow and missed some"),
            }
        }
    }
}

impl Manager {
    /// Subscribes to the swarm's events.
    #[must_use]
    pub fn events(&self) -> EventStream {
        let ((), feed) = self.inner.consensus.follow(|_| ());
        EventStream { feed, ready: VecDeque::new() }
    }
}

fn event(change: &Change, time: Timestamp) -> Option<SwarmEvent> {
    if !matches!(change.kind, Kind::Service | Kind::Node | Kind::Network | Kind::Secret | Kind::Config) {
        return None;
    }
    let (action, attributes) = match (&change.before, &change.after) {
        (None, Some(after)) => ("create", named(after)),
        (Some(before), None) => ("remove", named(before)),
        (Some(before), Some(after)) => ("update", updated(before, after)?),
        (None, None) => return None,
    };
    Some(SwarmEvent { kind: change.kind.as_str(), action, id: change.id.clone(), attributes, time })
}

fn named(object: &Object) -> BTreeMap<String, String> {
    let name = match object {
        Object::Service(service) => &service.spec.name,
        Object::Node(node) if node.spec.name.is_empty() => &node.description.hostname,
        Object::Node(node) => &node.spec.name,
        Object::Network(network) => &network.spec.name,
        Object::Secret(secret) => &secret.spec.name,
        Object::Config(config) => &config.spec.name,
        Object::Cluster(cluster) => &cluster.spec.name,
        Object::Task(task) => &task.name,
    };
    BTreeMap::from([("name".to_owned(), name.clone())])
}

/// The attributes of an update; `None` when nothing changed that anybody outside could see.
fn updated(before: &Object, after: &Object) -> Option<BTreeMap<String, String>> {
    let mut attributes = named(after);
    let mut note = |name: &str, old: String, new: String| {
        if old != new {
            attributes.insert(format!("{name}.old"), old);
            attributes.insert(format!("{name}.new"), new);
        }
    };
    let is_news = match (before, after) {
        (Object::Service(old), Object::Service(new)) => {
            note("image", image(old), image(new));
            note("replicas", replicas(old), replicas(new));
            note("updatestate", update_state(old), update_state(new));
            old.spec != new.spec || old.update_status != new.update_status || old.endpoint != new.endpoint
        }
        (Object::Node(old), Object::Node(new)) => {
            note(
                "availability",
                old.spec.availability.as_str().into(),
                new.spec.availability.as_str().into(),
            );
            note("role", old.spec.role.as_str().into(), new.spec.role.as_str().into());
            note("state", old.status.state.as_str().into(), new.status.state.as_str().into());
            note("leader", leader(old), leader(new));
            note("reachability", reachability(old), reachability(new));
            old.spec != new.spec
                || old.status != new.status
                || old.description != new.description
                || old.manager_status != new.manager_status
        }
        _ => true,
    };
    is_news.then_some(attributes)
}

fn image(service: &Service) -> String {
    let container = service.spec.task_template.container_spec.as_ref();
    container.map(|container| container.image.clone()).unwrap_or_default()
}

fn replicas(service: &Service) -> String {
    service.spec.replicas().map(|count| count.to_string()).unwrap_or_default()
}

fn update_state(service: &Service) -> String {
    service.update_status.as_ref().map(|status| status.state.as_str().to_owned()).unwrap_or_default()
}

fn leader(node: &Node) -> String {
    node.manager_status.as_ref().map(|status| status.leader.to_string()).unwrap_or_default()
}

fn reachability(node: &Node) -> String {
    node.manager_status.as_ref().map(|status| status.reachability.as_str().to_owned()).unwrap_or_default()
}
