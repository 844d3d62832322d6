//! What the engine asks of a swarm: places of plain containers on its networks.
//!
//! In: a container that starts or is connected, a network that this machine does not have, or has for a swarm. Out: its
//! addresses there. Containers of tasks bring theirs along. Who answers is set once, by whoever knows the swarm.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use network::NetworkJoin;
use tokio::sync::watch;

use crate::container::record::Record;
use crate::engine::{Engine, Inner};
use crate::error::EngineError;

/// Label of containers that a swarm's tasks run in. Source: moby, `daemon/cluster/executor/container/container.go`.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// How long a container that starts with the daemon waits for the swarm's part of it. chosen: it is opened right after.
const SET_WITHIN: Duration = Duration::from_secs(5);

/// A container that wants to be on a network of the swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceWish {
    /// Id, name or id prefix of the network.
    pub network: String,
    /// 64 hex digits.
    pub container_id: String,
    /// Names that mean it on the network, its own first.
    pub names: Vec<String>,
    /// Addresses that it asks for, at most one of each family.
    pub addresses: Vec<IpAddr>,
}

/// A place on a network of the swarm.
pub struct Place {
    /// Id of the network, which this machine has now.
    pub network_id: String,
    /// One per family that the network has.
    pub addresses: Vec<IpAddr>,
    /// To be kept until the container runs, or will not.
    pub hold: Hold,
}

/// What keeps a place while its container does not run yet.
pub type Hold = Box<dyn Any + Send + Sync>;

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceError {
    /// This machine is in no swarm.
    NoSwarm,
    /// The swarm has no such network.
    NoNetwork,
    /// In Docker's words.
    Refused(String),
}

/// A place on its way.
pub type Attaching = Pin<Box<dyn Future<Output = Result<Place, PlaceError>> + Send>>;

/// Gives places. Whoever asked gives one back by not running the container.
pub trait SwarmNetworks: Send + Sync + 'static {
    /// Asks for a place; asking again for a container that has one gives the same.
    fn attach(&self, wish: PlaceWish) -> Attaching;
}

/// Who gives places, once that is known.
pub(crate) struct Slot(watch::Sender<Option<Arc<dyn SwarmNetworks>>>);

impl Slot {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.0.borrow().is_some()).finish()
    }
}

impl Engine {
    /// Says who gives places on networks of the swarm.
    pub fn set_swarm_networks(&self, swarm: Arc<dyn SwarmNetworks>) {
        self.inner.swarm_networks.0.send_replace(Some(swarm));
    }
}

/// Asks for the places that the container needs, and puts them into what it asks of the machine's networks. The holds are
/// to be kept until it runs. With `waits` it may be that nobody said yet who gives places.
pub(crate) async fn give_places(
    inner: &Inner,
    record: &Record,
    joins: &mut [NetworkJoin],
    waits: bool,
) -> Result<Vec<Hold>, EngineError> {
    let mut holds = Vec::new();
    if record.config.labels.contains_key(TASK_LABEL) {
        return Ok(holds);
    }
    for join in joins {
        let is_swarms = match inner.config.network.facts(&join.network).await {
            Some(facts) => facts.driver == "overlay",
            None => true,
        };
        if !is_swarms {
            continue;
        }
        let mut slot = inner.swarm_networks.0.subscribe();
        let swarm = if waits {
            let set = tokio::time::timeout(SET_WITHIN, slot.wait_for(Option::is_some)).await;
            set.ok().and_then(Result::ok).and_then(|swarm| swarm.clone())
        } else {
            slot.borrow_and_update().clone()
        };
        // The machine's network then says what it has not.
        let Some(swarm) = swarm else { continue };
        match swarm.attach(wish(record, join)).await {
            Ok(place) => {
                join.network = place.network_id;
                for address in place.addresses {
                    match address {
                        IpAddr::V4(ip) => join.ip = Some(ip),
                        IpAddr::V6(ip) => join.ip6 = Some(ip),
                    }
                }
                holds.push(place.hold);
            }
            Err(PlaceError::NoSwarm | PlaceError::NoNetwork) => {}
            Err(PlaceError::Refused(text)) => return Err(EngineError::NotAttached(text)),
        }
    }
    Ok(holds)
}

fn wish(record: &Record, join: &NetworkJoin) -> PlaceWish {
    let short: String = record.id.chars().take(12).collect();
    let mut names = vec![record.name.clone(), short];
    let more = join.aliases.iter().chain(Some(&record.config.hostname));
    for name in more {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    PlaceWish {
        network: join.network.clone(),
        container_id: record.id.clone(),
        names,
        addresses: join.ip.map(IpAddr::V4).into_iter().chain(join.ip6.map(IpAddr::V6)).collect(),
    }
}
