//! Addresses come serially, belong to one, and follow from the store.

use super::*;
use objects::{IpamConfig, IpamOptions, NetworkAttachment, TaskState, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use store::Write;

fn network(configs: &[(&str, &str, &str)]) -> Network {
    let configs = configs.iter().map(|(subnet, range, gateway)| IpamConfig {
        subnet: (*subnet).to_owned(),
        range: (*range).to_owned(),
        gateway: (*gateway).to_owned(),
    });
    let ipam_options = Some(IpamOptions { configs: configs.collect(), ..IpamOptions::default() });
    let mut network = Network { id: "net".into(), ipam_options, ..Network::default() };
    network.spec.name = "net".to_owned();
    network
}

fn task(id: &str, addresses: Vec<String>) -> Task {
    let networks_attachments = vec![NetworkAttachment { network: "net".into(), addresses }];
    Task { id: id.into(), networks_attachments, ..Task::default() }
}

/// What so many takes give, one after the other.
fn check(configs: &[(&str, &str, &str)], takes: usize, expect: &[&str]) {
    let (network, mut addresses) = (network(configs), Addresses::default());
    let take = |_| addresses.take(&network).map_or_else(|error| error.to_string(), |all| all.join(" "));
    let found: Vec<String> = (0..takes).map(take).collect();
    assert_eq!(found, expect);
}

#[test]
fn addresses_come_one_after_the_other_without_the_gateway() {
    check(&[("10.0.1.0/24", "", "10.0.1.1")], 2, &["10.0.1.2/24", "10.0.1.3/24"]);
    check(&[("10.0.1.0/24", "", "10.0.1.2")], 2, &["10.0.1.1/24", "10.0.1.3/24"]);
    check(&[("10.0.1.0/24", "10.0.1.128/30", "10.0.1.1")], 2, &["10.0.1.128/24", "10.0.1.129/24"]);
    check(&[("10.0.1.0/24", "", "10.0.1.1"), ("fd00::/64", "", "fd00::1")], 1, &["10.0.1.2/24 fd00::2/64"]);
}

#[test]
fn a_full_network_says_so() {
    let full = "no available IPv4 addresses on network net (10.0.1.0/29)";
    let five = ["10.0.1.2/29", "10.0.1.3/29", "10.0.1.4/29", "10.0.1.5/29", "10.0.1.6/29", full, full];
    check(&[("10.0.1.0/29", "", "10.0.1.1")], 7, &five);
}

#[test]
fn addresses_of_tasks_that_ended_are_used_again_last() {
    let network = network(&[("10.0.1.0/29", "", "10.0.1.1")]);
    let mut addresses = Addresses::default();
    let mut ended = task("a", vec!["10.0.1.2/29".to_owned()]);
    ended.status.state = TaskState::Failed;
    addresses.note_task(None, Some(&ended));
    addresses.note_task(None, Some(&task("b", vec!["10.0.1.5/29".to_owned()])));
    let found: Vec<_> = (0..5).map(|_| addresses.take(&network).map(|all| all.join(" ")).ok()).collect();
    let expect = ["10.0.1.6/29", "10.0.1.3/29", "10.0.1.4/29", "10.0.1.2/29"].map(|it| Some(it.to_owned()));
    assert_eq!(found[..4], expect);
    assert_eq!(found[4], None);
}

#[test]
fn an_address_is_free_when_its_task_ended() {
    let mut addresses = Addresses::default();
    let running = task("a", vec!["10.0.1.2/29".to_owned()]);
    let mut ended = running.clone();
    ended.status.state = TaskState::Shutdown;
    assert_eq!(addresses.note_task(None, Some(&running)), []);
    assert_eq!(addresses.note_task(Some(&running), Some(&ended)), ["net".into()]);
    assert_eq!(addresses.note_task(Some(&ended), None), []);
    assert_eq!(addresses, Addresses::default());
}

proptest! {
    #[test]
    fn no_two_live_endpoints_share_an_address_and_a_new_leader_finds_the_same(
        steps in prop::collection::vec((0usize..24, 0u8..4), 1..80),
    ) {
        let network = network(&[("10.0.1.0/28", "", "10.0.1.3"), ("fd00::/124", "", "fd00::1")]);
        let mut store = Store::new();
        store.apply(1, Timestamp(1), &[Write::Create(network.clone().into())]).unwrap();
        let mut addresses = Addresses::of(&store);
        for (number, (which, what)) in steps.into_iter().enumerate() {
            let id = format!("t{which}");
            let known = store.task(&id.as_str().into()).cloned();
            let write = match (known, what) {
                (None, _) => {
                    let found = addresses.take(&network);
                    addresses.forget_assumed();
                    let anew = Addresses::of(&store).take(&network);
                    prop_assert_eq!(&found, &anew, "another leader would give another one");
                    let Ok(found) = found else {
                        let live = store.tasks_on_network(&"net".into()).count();
                        prop_assert!(live == 13, "{live} of 13 addresses are in use");
                        continue;
                    };
                    Write::Create(task(&id, found).into())
                }
                (Some(known), 0) => Write::remove(known),
                (Some(known), _) => {
                    let mut ended = Task::clone(&known);
                    ended.status.state = TaskState::Complete;
                    Write::update(ended)
                }
            };
            for change in store.apply(number as u64 + 2, Timestamp(1), &[write]).unwrap() {
                let of = |object: &Option<store::Object>| object.as_ref().and_then(|it| it.as_task()).cloned();
                addresses.note_task(of(&change.before).as_deref(), of(&change.after).as_deref());
            }
            prop_assert_eq!(&addresses, &Addresses::of(&store));
            let live: Vec<_> = store.tasks_on_network(&"net".into()).flat_map(|it| of_task(it)).collect();
            let distinct: BTreeSet<_> = live.iter().map(|(_, address, _)| address).collect();
            prop_assert_eq!(distinct.len(), live.len());
            for (_, address, _) in &live {
                let subnet = network.subnets().into_iter().find(|subnet| subnet.net.contains(address));
                prop_assert!(subnet.is_some_and(|subnet| subnet.gateway != *address), "{address}");
            }
        }
    }
}
