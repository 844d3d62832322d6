//! `GET /events`: what happens, as it happens.
//!
//! In: since, until, filters. Out: one JSON object per line, of this machine and, on a manager, of the swarm. Ends at
//! `until`, when the client leaves, or when the daemon stops. Never remembers anything: the engine does.

use bytes::Bytes;
use docker::{EventMessage, Filters, Timestamp};
use engine::{EventQuery, EventStream};
use futures_util::stream::unfold;
use manager::{Manager, SwarmEvent};
use tokio::sync::watch;

use crate::AppState;
use crate::answer::{Answer, JSON, line, stream_until};
use crate::call::Call;
use crate::clock;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![serve!(GET "/events", 24, events, "stream events")]
}

/// Where the lines come from.
struct Sources {
    local: EventStream,
    swarm: SwarmEvents,
    until: Option<Timestamp>,
    filters: Filters,
}

async fn events(call: Call) -> Result<Answer, ApiError> {
    let (since, until) = (clock::moment(&call.query, "since")?, clock::moment(&call.query, "until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let text = format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.text("since"),
            call.query.text("until")
        );
        return Err(ApiError::invalid(text));
    }
    let filters = call.query.filters()?;
    let local = call.state.engine.events(EventQuery { since, until, filters: filters.clone() });
    let is_live = until.is_none_or(|until| until > clock::now());
    // The swarm's past is not remembered, and a node that is no manager hears nothing of it.
    let swarm = SwarmEvents::of(is_live.then(|| call.state.swarm.managers()));
    let sources = Sources { local, swarm, until, filters };
    Ok(stream_until(&call.state.shutdown, JSON, unfold(sources, next)))
}

/// The next line of either source.
async fn next(mut sources: Sources) -> Option<(Bytes, Sources)> {
    loop {
        let message = tokio::select! {
            local = sources.local.next() => line(&*local?, b"\n"),
            swarm = sources.swarm.next() => {
                let message = swarm_message(swarm);
                let is_late = sources.until.is_some_and(|until| message.time_nano > until.0);
                if is_late || !passes(&sources.filters, &message) {
                    continue;
                }
                line(&message, b"\n")
            }
        };
        return Some((message, sources));
    }
}

/// Events of whichever manager runs here, also of one that comes later.
struct SwarmEvents {
    /// `None` when nobody wants to hear of the swarm.
    managers: Option<watch::Receiver<Option<Manager>>>,
    stream: Option<manager::EventStream>,
}

impl SwarmEvents {
    fn of(mut managers: Option<watch::Receiver<Option<Manager>>>) -> Self {
        let stream = managers.as_mut().and_then(subscribe);
        Self { managers, stream }
    }

    /// Waits for ever when there can be none. Cancel safe.
    async fn next(&mut self) -> SwarmEvent {
        let Some(managers) = &mut self.managers else { return std::future::pending().await };
        loop {
            if let Some(stream) = &mut self.stream {
                if let Some(event) = stream.next().await {
                    return event;
                }
                self.stream = None;
            }
            if managers.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.stream = subscribe(managers);
        }
    }
}

fn subscribe(managers: &mut watch::Receiver<Option<Manager>>) -> Option<manager::EventStream> {
    managers.borrow_and_update().as_ref().map(Manager::events)
}

fn swarm_message(event: SwarmEvent) -> EventMessage {
    EventMessage::swarm(event.kind, event.action, &event.id, event.attributes, event.time)
}

/// Source: moby, `daemon/events/filter.go` `Include`, the parts that can name an object of the swarm.
fn passes(filters: &Filters, message: &EventMessage) -> bool {
    let attributes = &message.actor.attributes;
    let names = |field: &str, kind: &str| {
        let name = attributes.get("name").map_or("", String::as_str);
        !filters.contains(field)
            || (message.kind == kind
                && (filters.matches_prefix(field, &message.actor.id) || filters.matches_prefix(field, name)))
    };
    let of_this_machine = ["container", "plugin", "volume", "image", "daemon"];
    of_this_machine.iter().all(|field| !filters.contains(field))
        && filters.matches_exactly("event", &message.action)
        && filters.matches_exactly("type", &message.kind)
        && filters.matches_exactly("scope", &message.scope)
        && names("network", "network")
        && names("node", "node")
        && names("service", "service")
        && names("secret", "secret")
        && names("config", "config")
        && filters.matches_labels("label", attributes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(filters: &str, expect: bool) {
        let attributes = BTreeMap::from([("name".to_owned(), "web".to_owned())]);
        let message = EventMessage::swarm("service", "update", "abc123", attributes, Timestamp(1));
        assert_eq!(passes(&Filters::parse(filters).unwrap(), &message), expect, "{filters}");
    }

    #[test]
    fn events_of_the_swarm_are_filtered_as_dockerd_filters_them() {
        check("", true);
        check(r#"{"type":{"service":true}}"#, true);
        check(r#"{"type":{"node":true}}"#, false);
        check(r#"{"service":{"web":true}}"#, true);
        check(r#"{"service":{"abc":true}}"#, true);
        check(r#"{"node":{"web":true}}"#, false);
        check(r#"{"scope":["local"]}"#, false);
        check(r#"{"event":["update"]}"#, true);
        check(r#"{"container":["web"]}"#, false);
    }
}
