//! What happened on this machine: the last events, and a live stream of them.
//!
//! In: events of containers, execs, volumes, and of others (images, networks) by [`Engine::publish`]. Out: streams that
//! begin with what is remembered since a time, filtered. Never blocks whoever publishes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use docker::{EventMessage, Filters};
use objects::Timestamp;
use tokio::sync::broadcast;

use crate::container::Container;
use crate::container::record::Record;
use crate::engine::{Engine, now};

/// Source: moby, `daemon/events/events.go`, `eventsLimit`.
const REMEMBERED: usize = 256;
/// Chosen: a slow reader may be this far behind before it loses events.
const BACKLOG: usize = 2048;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// From this time on, as far as they are remembered; `None` is from now on.
    pub since: Option<Timestamp>,
    /// Up to this time; `None` never ends. In the past: only what is remembered.
    pub until: Option<Timestamp>,
    /// Docker's filters: container, daemon, event, image, label, network, node, scope, service, type, volume, ….
    pub filters: Filters,
}

/// A stream of events.
pub struct EventStream {
    past: VecDeque<Arc<EventMessage>>,
    live: Option<broadcast::Receiver<Arc<EventMessage>>>,
    until: Option<Timestamp>,
    filters: Filters,
}

impl EventStream {
    /// The next event; `None` after `until`. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<EventMessage>> {
        loop {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => self.next_live().await?,
            };
            if self.until.is_some_and(|until| event.time_nano > until.0) {
                return None;
            }
            if matches(&self.filters, &event) {
                return Some(event);
            }
        }
    }

    async fn next_live(&mut self) -> Option<Arc<EventMessage>> {
        let live = self.live.as_mut()?;
        let left = self.until.map(|until| until.since(now()).to_std());
        loop {
            let received = match left {
                None => live.recv().await,
                Some(left) => tokio::time::timeout(left, live.recv()).await.ok()?,
            };
            match received {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a reader of events was too slow");
                }
            }
        }
    }
}

/// Remembers and distributes events.
pub(crate) struct Events {
    recent: Mutex<VecDeque<Arc<EventMessage>>>,
    sender: broadcast::Sender<Arc<EventMessage>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Events { recent: Mutex::new(VecDeque::new()), sender: broadcast::channel(BACKLOG).0 }
    }

    pub(crate) fn publish(&self, event: EventMessage) {
        let event = Arc::new(event);
        // Under the lock, so that a new reader sees each event once: remembered or live.
        let mut recent = self.recent.lock().expect("nothing panics while it holds this lock");
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&event));
        // Nobody listening is fine.
        let _ = self.sender.send(event);
    }

    fn stream(&self, query: EventQuery) -> EventStream {
        let is_past = query.until.is_some_and(|until| until <= now());
        let recent = self.recent.lock().expect("nothing panics while it holds this lock");
        let live = (!is_past).then(|| self.sender.subscribe());
        let since = query.since;
        let past = recent
            .iter()
            .filter(|event| match since {
                Some(since) => event.time_nano >= since.0,
                // Docker gives the past up to a time even when no beginning is named.
                None => is_past,
            })
            .cloned()
            .collect();
        EventStream { past, live, until: query.until, filters: query.filters }
    }

    /// Something happened to a container; its labels, image and name are added.
    pub(crate) fn container(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let attributes = {
            let live = container.live();
            container_attributes(&live.record, more)
        };
        self.publish(EventMessage::local("container", action, &container.id, attributes, now()));
    }

    /// Something happened to a volume.
    pub(crate) fn volume(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.publish(EventMessage::local("volume", action, name, attributes, now()));
    }

    /// A container joined or left a network.
    pub(crate) fn endpoint(&self, endpoint: &network::Endpoint, action: &str, container: &str) {
        let (name, driver) = (endpoint.network_name.as_str(), endpoint.driver.as_str());
        self.network(
            &endpoint.network_id,
            action,
            &[("container", container), ("name", name), ("type", driver)],
        );
    }

    /// Something happened to a network.
    pub(crate) fn network(&self, id: &str, action: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.publish(EventMessage::local("network", action, id, attributes.collect(), now()));
    }
}

fn container_attributes(record: &Record, more: &[(&str, String)]) -> BTreeMap<String, String> {
    let mut attributes = record.config.labels.clone();
    attributes.insert("image".into(), record.image_name().to_owned());
    attributes.insert("name".into(), record.name.clone());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    attributes
}

/// Whether an event passes. Source: moby, `daemon/events/filter.go`.
fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let kind = event.kind.as_str();
    let attributes = &event.actor.attributes;
    // `health_status` also means `health_status: healthy`, `exec_start` also `exec_start: ls`.
    let action = event.action.split(':').next().unwrap_or_default();
    let by_action =
        filters.matches_exactly("event", &event.action) || filters.matches_exactly("event", action);
    let by_kind = filters.matches_exactly("type", kind) && filters.matches_exactly("scope", &event.scope);
    let by_label = filters.matches_labels("label", attributes);
    let name = attributes.get("name").map_or("", String::as_str);
    let named = |field: &str| {
        !filters.contains(field)
            || (kind == field
                && (filters.matches_prefix(field, &event.actor.id)
                    || filters.get(field).any(|wanted| wanted.trim_start_matches('/') == name)))
    };
    let objects =
        ["container", "plugin", "volume", "network", "daemon", "node", "service", "secret", "config"];
    by_action && by_kind && by_label && objects.iter().all(|field| named(field)) && by_image(filters, event)
}

/// An image filter means events of the image and of containers made from it.
fn by_image(filters: &Filters, event: &EventMessage) -> bool {
    if !filters.contains("image") {
        return true;
    }
    let image = match event.kind.as_str() {
        "image" => event.actor.attributes.get("name").map_or("", String::as_str),
        "container" => event.actor.attributes.get("image").map_or("", String::as_str),
        _ => return false,
    };
    let bare = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image, |(name, _)| name);
    filters.get("image").any(|wanted| wanted == image || wanted == bare || event.actor.id.starts_with(wanted))
}

impl Engine {
    /// A stream of events.
    pub fn events(&self, query: EventQuery) -> EventStream {
        self.inner.events.stream(query)
    }

    /// How many streams of events are being read.
    #[must_use]
    pub fn event_listeners(&self) -> usize {
        self.inner.events.sender.receiver_count()
    }

    /// Tells what happened outside the engine (images, networks, the daemon).
    pub fn publish(&self, event: EventMessage) {
        self.inner.events.publish(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)], at: i64) -> EventMessage {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        EventMessage::local(kind, action, id, attributes, Timestamp(at))
    }

    fn check(filter: &str, expect: &[usize]) {
        let events = [
            event("container", "start", "abc1", &[("name", "web"), ("image", "nginx:1"), ("a", "b")], 1),
            event("container", "health_status: healthy", "abc1", &[("name", "web"), ("image", "nginx:1")], 2),
            event("image", "pull", "nginx:1", &[("name", "nginx")], 3),
            event("volume", "create", "data", &[("driver", "local")], 4),
        ];
        let filters = Filters::parse(filter).unwrap();
        let passed: Vec<usize> = (0..events.len()).filter(|at| matches(&filters, &events[*at])).collect();
        assert_eq!(passed, expect, "{filter}");
    }

    #[test]
    fn filters_choose_events_as_dockers_do() {
        check("", &[0, 1, 2, 3]);
        check(r#"{"type":["container"]}"#, &[0, 1]);
        check(r#"{"container":["web"]}"#, &[0, 1]);
        check(r#"{"container":["abc"],"event":["start"]}"#, &[0]);
        check(r#"{"event":["health_status"]}"#, &[1]);
        check(r#"{"event":["health_status: healthy"]}"#, &[1]);
        check(r#"{"label":["a=b"]}"#, &[0]);
        check(r#"{"image":["nginx"]}"#, &[0, 1, 2]);
        check(r#"{"volume":["data"]}"#, &[3]);
        check(r#"{"container":["web"],"volume":["data"]}"#, &[]);
    }

    #[tokio::test]
    async fn a_stream_begins_with_the_past_and_goes_on_live() {
        let events = Events::new();
        for at in 1..=3 {
            events.publish(event("volume", "create", "v", &[], at));
        }
        let mut stream = events.stream(EventQuery { since: Some(Timestamp(2)), ..Default::default() });
        events.publish(event("volume", "destroy", "v", &[], 4));
        let mut times = Vec::new();
        for _ in 0..3 {
            times.push(stream.next().await.unwrap().time_nano);
        }
        assert_eq!(times, [2, 3, 4]);
    }

    #[tokio::test]
    async fn a_stream_into_the_past_ends() {
        let events = Events::new();
        for at in 1..=3 {
            events.publish(event("volume", "create", "v", &[], at));
        }
        let mut stream = events.stream(EventQuery { until: Some(Timestamp(2)), ..Default::default() });
        let mut count = 0;
        while stream.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn only_the_last_256_are_remembered() {
        let events = Events::new();
        for at in 1..=300 {
            events.publish(event("volume", "create", "v", &[], at));
        }
        let stream = events.stream(EventQuery { since: Some(Timestamp(1)), ..Default::default() });
        assert_eq!((stream.past.len(), stream.past[0].time_nano), (REMEMBERED, 45));
    }
}
