//! Decides which ports of the nodes a service publishes.
//!
//! In: the service with the ports it has, and all other services. Out: its endpoint, or the service that is in the way.
//! A port that was given out stays the same while the service asks for it. Never looks at what else listens on a node.

use std::collections::{BTreeMap, BTreeSet};

use objects::{Endpoint, PortConfig, PortProtocol, PublishMode, Service, ServiceId};
use store::Store;

/// First port for services without a wish. Source: moby/swarmkit, `manager/allocator/portallocator.go`.
pub const FIRST_DYNAMIC_PORT: u32 = 30_000;
/// Last port for services without a wish. Source: moby/swarmkit, `manager/allocator/portallocator.go`.
pub const LAST_DYNAMIC_PORT: u32 = 32_767;

/// Why a service cannot have its ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another service publishes the port.
    ///
    /// Source: moby/swarmkit, `manager/controlapi/service.go`.
    #[error("port '{port}' is already in use by service '{name}' ({id}) as {}", describe(*.mode))]
    InUse {
        /// The port.
        port: u32,
        /// Name of the other service.
        name: String,
        /// Its id.
        id: ServiceId,
        /// How it publishes the port.
        mode: PublishMode,
    },
    /// All ports for services without a wish are taken.
    #[error("dynamic port space is exhausted")]
    Exhausted,
}

fn describe(mode: PublishMode) -> &'static str {
    match mode {
        PublishMode::Ingress => "an ingress port",
        PublishMode::Host => "a host-published port",
    }
}

/// A port of the swarm as a whole.
type Key = (PortProtocol, u32);

/// The endpoint that `service` should have, given what it has and what the others have.
///
/// Ports of host mode without a number stay zero: the task's node chooses one.
pub fn endpoint(store: &Store, service: &Service) -> Result<Endpoint, PortError> {
    let spec = service.spec.endpoint_spec.clone().unwrap_or_default();
    let mut ports = spec.ports.clone();
    if !ports.is_empty() {
        let taken = ports_of_others(store, &service.id);
        for port in ports.iter().filter(|port| port.published_port != 0) {
            refuse_conflict(&taken, port)?;
        }
        give_numbers(&mut ports, &service.endpoint.ports, &taken)?;
    }
    Ok(Endpoint { spec, ports, virtual_ips: service.endpoint.virtual_ips.clone() })
}

/// Whether the endpoint of `service` is the one for its spec.
pub fn is_allocated(service: &Service) -> bool {
    let has_spec = match &service.spec.endpoint_spec {
        Some(spec) => service.endpoint.spec == *spec,
        None => service.endpoint.spec == objects::EndpointSpec::default(),
    };
    has_spec && service.endpoint.ports.len() == service.spec.ports().len()
}

fn ports_of_others<'a>(store: &'a Store, own: &ServiceId) -> BTreeMap<Key, (&'a Service, PublishMode)> {
    let mut taken = BTreeMap::new();
    for other in store.services().filter(|other| other.id != *own) {
        // A port counts from the moment it is in a spec, even before it is given out.
        for port in other.endpoint.ports.iter().chain(other.spec.ports()) {
            if port.published_port != 0 {
                taken.entry((port.protocol, port.published_port)).or_insert((&**other, port.publish_mode));
            }
        }
    }
    taken
}

/// Two services may publish a port on the nodes of their tasks; every other pair conflicts.
fn refuse_conflict(
    taken: &BTreeMap<Key, (&Service, PublishMode)>,
    port: &PortConfig,
) -> Result<(), PortError> {
    match taken.get(&(port.protocol, port.published_port)) {
        None => Ok(()),
        Some((_, PublishMode::Host)) if port.publish_mode == PublishMode::Host => Ok(()),
        Some((other, mode)) => Err(PortError::InUse {
            port: port.published_port,
            name: other.spec.name.clone(),
            id: other.id.clone(),
            mode: *mode,
        }),
    }
}

fn give_numbers(
    ports: &mut [PortConfig],
    had: &[PortConfig],
    taken: &BTreeMap<Key, (&Service, PublishMode)>,
) -> Result<(), PortError> {
    let mut own: BTreeSet<Key> =
        ports.iter().map(|port| (port.protocol, port.published_port)).filter(|key| key.1 != 0).collect();
    let is_open = |port: &PortConfig| port.published_port == 0 && port.publish_mode == PublishMode::Ingress;
    let is_dynamic = |number: u32| (FIRST_DYNAMIC_PORT..=LAST_DYNAMIC_PORT).contains(&number);
    // Kept ports come before new ones, so that a new one never takes what another port of the service has.
    for port in ports.iter_mut().filter(|port| is_open(port)) {
        let same = |old: &&PortConfig| {
            old.target_port == port.target_port
                && old.protocol == port.protocol
                && old.publish_mode == port.publish_mode
                && old.name == port.name
                && is_dynamic(old.published_port)
        };
        let kept = had.iter().filter(same).map(|old| (old.protocol, old.published_port));
        if let Some(key) = kept.into_iter().find(|key| !own.contains(key) && !taken.contains_key(key)) {
            own.insert(key);
            port.published_port = key.1;
        }
    }
    for port in ports.iter_mut().filter(|port| is_open(port)) {
        let is_free = |number: &u32| {
            let key = (port.protocol, *number);
            !own.contains(&key) && !taken.contains_key(&key)
        };
        let number = (FIRST_DYNAMIC_PORT..=LAST_DYNAMIC_PORT).find(is_free).ok_or(PortError::Exhausted)?;
        own.insert((port.protocol, number));
        port.published_port = number;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::{EndpointSpec, ServiceSpec, Timestamp};
    use proptest::prelude::*;
    use store::Write;

    fn port(published_port: u32, target_port: u32) -> PortConfig {
        PortConfig { published_port, target_port, ..Default::default() }
    }

    fn host(published_port: u32) -> PortConfig {
        PortConfig { publish_mode: PublishMode::Host, ..port(published_port, 80) }
    }

    fn service(name: &str, ports: &[PortConfig]) -> Service {
        let endpoint_spec = Some(EndpointSpec { ports: ports.to_vec(), ..Default::default() });
        Service::new(name.into(), ServiceSpec { name: name.to_owned(), endpoint_spec, ..Default::default() })
    }

    /// Adds services one after the other; returns the published numbers of each, or the error.
    fn check(wishes: &[&[PortConfig]], expect: &[Result<Vec<u32>, &str>]) {
        let mut store = Store::new();
        for (position, (ports, expect)) in wishes.iter().zip(expect).enumerate() {
            let mut service = service(&format!("s{position}"), ports);
            let found = endpoint(&store, &service).map(|endpoint| {
                let numbers = endpoint.ports.iter().map(|port| port.published_port).collect();
                service.endpoint = endpoint;
                let writes = [Write::Create(service.into())];
                store.apply(position as u64 + 1, Timestamp(1), &writes).unwrap();
                numbers
            });
            assert_eq!(found.map_err(|error| error.to_string()), expect.clone().map_err(str::to_owned));
        }
    }

    #[test]
    fn open_wishes_get_the_lowest_free_port() {
        check(
            &[&[port(0, 80), port(0, 81)], &[port(30_002, 80)], &[port(0, 80)]],
            &[Ok(vec![30_000, 30_001]), Ok(vec![30_002]), Ok(vec![30_003])],
        );
    }

    #[test]
    fn ingress_ports_conflict_with_everything_and_host_ports_not_with_each_other() {
        check(
            &[&[port(80, 80)], &[port(80, 80)], &[host(80)], &[host(81)], &[host(81)], &[port(81, 80)]],
            &[
                Ok(vec![80]),
                Err("port '80' is already in use by service 's0' (s0) as an ingress port"),
                Err("port '80' is already in use by service 's0' (s0) as an ingress port"),
                Ok(vec![81]),
                Ok(vec![81]),
                Err("port '81' is already in use by service 's3' (s3) as a host-published port"),
            ],
        );
    }

    #[test]
    fn a_port_stays_when_another_is_added_before_it() {
        let mut before = service("a", &[port(0, 80)]);
        before.endpoint = endpoint(&Store::new(), &before).unwrap();
        let mut after = before.clone();
        after.spec.endpoint_spec.as_mut().unwrap().ports.insert(0, port(0, 70));
        assert!(!is_allocated(&after));
        let numbers: Vec<_> =
            endpoint(&Store::new(), &after).unwrap().ports.iter().map(|port| port.published_port).collect();
        assert_eq!(numbers, [30_001, 30_000]);
    }

    proptest! {
        #[test]
        fn ingress_ports_belong_to_one_service_and_stay(wishes in prop::collection::vec(prop::collection::vec((0u32..3, 1u32..4), 0..4), 1..8)) {
            let mut store = Store::new();
            let mut owners = BTreeMap::new();
            for (position, wish) in wishes.iter().enumerate() {
                let ports: Vec<_> = wish
                    .iter()
                    .map(|(published, target)| port(if *published == 0 { 0 } else { 29_999 + published }, *target))
                    .collect();
                let mut service = service(&format!("s{position}"), &ports);
                let Ok(found) = endpoint(&store, &service) else { continue };
                for port in found.ports.iter().map(|port| port.published_port).collect::<BTreeSet<_>>() {
                    prop_assert!(port != 0);
                    prop_assert_eq!(owners.insert(port, position), None);
                }
                service.endpoint = found.clone();
                prop_assert!(is_allocated(&service));
                prop_assert_eq!(endpoint(&store, &service), Ok(found));
                store.apply(position as u64 + 1, Timestamp(1), &[Write::Create(service.into())]).unwrap();
            }
        }
    }
}
