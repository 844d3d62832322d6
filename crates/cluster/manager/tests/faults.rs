//! What holds when managers come and go at bad moments, and when somebody keeps what he should have lost.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use manager::Origin;
use rpc::{CallError, Client, ClientOptions};
use support::{Machine, Swarm, open, renew, set_role, soon, until};
use wire::Code;
use wire::forward::{Forward, Forwarding, Operation};
use wire::session::{Farewell, GoodbyeRequest, OpenRequest, OpenSession, SessionId, SessionMessage};

fn state(machine: &Machine, node: &str) -> String {
    machine.manager().node(node).unwrap()["Status"]["State"].as_str().unwrap().to_owned()
}

#[test]
fn a_leader_that_stops_tells_the_next_one_who_comes_back() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let leader = swarm.leader();
    let stopping = &swarm.machines[leader];
    let node = stopping.papers.node.clone();
    let opening = OpenRequest {
        description: support::description("host"),
        now: support::now(),
        address: "127.0.0.1".to_owned(),
        ..OpenRequest::default()
    };
    let opened = stopping.manager().open_session(&node, opening, Origin::Here);
    let session = stopping.block_on(soon(opened)).unwrap();
    let goodbye = GoodbyeRequest { session: session.id().clone(), farewell: Farewell::Hold { ms: 30_000 } };
    stopping.manager().goodbye(&node, &goodbye).unwrap();
    drop(session);
    swarm.machines[leader].stop();
    let next = &swarm.machines[swarm.leader()];
    until("its session is missed", || state(next, node.as_str()) != "ready");
    assert_eq!(state(next, node.as_str()), "disconnected", "nobody holds it for gone");
}

#[test]
fn a_node_that_is_held_for_gone_is_told_to_come_back() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let worker = swarm.add_worker();
    let (leader, follower) = (swarm.leader(), swarm.follower());
    let at = swarm.machines[follower].address.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // It proves nothing: its datagrams are lost, and its connection says nothing.
    let mute = ClientOptions { ping_after: Duration::from_secs(3600), ..ClientOptions::default() };
    let client = Client::with_options(worker.tls(), mute);
    let mut session = runtime.block_on(soon(open(&client, &at))).unwrap();
    let bye = runtime.block_on(soon(async {
        loop {
            match session.next().await {
                Some(Ok(SessionMessage::Bye(bye))) => return bye,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }));
    assert!(!bye.is_removed);
    assert_eq!(state(&swarm.machines[leader], worker.node.as_str()), "down");
    let _session = runtime.block_on(soon(open(&client, &at))).unwrap();
    until("it is ready again", || state(&swarm.machines[leader], worker.node.as_str()) == "ready");
}

#[test]
fn a_manager_that_was_taken_out_and_wanted_back_while_it_was_away_takes_part_again() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let stays = swarm.leader();
    let (gone, away) = ((stays + 1) % 3, (stays + 2) % 3);
    let [gone_id, away_id] = [gone, away].map(|index| swarm.machines[index].papers.node.clone());
    let is_manager = |swarm: &Swarm, node: &str| {
        swarm.machines[stays].manager().node(node).unwrap().get("ManagerStatus").is_some()
    };
    swarm.machines[away].kill();
    until("it is seen to be away", || {
        let node = swarm.machines[stays].manager().node(away_id.as_str()).unwrap();
        node["ManagerStatus"]["Reachability"] == "unreachable"
    });
    set_role(&swarm, stays, away_id.as_str(), "worker").unwrap();
    until("it is taken out", || !is_manager(&swarm, away_id.as_str()));
    set_role(&swarm, stays, gone_id.as_str(), "worker").unwrap();
    until("so is the other", || !is_manager(&swarm, gone_id.as_str()));
    // The one manager that is left cannot outvote what the log of the other says.
    swarm.machines[gone].kill();
    set_role(&swarm, stays, away_id.as_str(), "manager").unwrap();
    swarm.machines[away].start_again();
    let back = &swarm.machines[away];
    back.block_on(soon(back.manager().ready())).unwrap();
    until("it is a manager", || is_manager(&swarm, away_id.as_str()));
}

#[test]
fn a_manager_of_before_a_forced_new_cluster_needs_another_log() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    (0..3).for_each(|index| swarm.machines[index].kill());
    swarm.machines[1].force_new_cluster();
    let alone = &swarm.machines[1];
    alone.block_on(soon(alone.manager().ready())).unwrap();
    let id = swarm.machines[0].papers.node.clone();
    set_role(&swarm, 1, id.as_str(), "manager").unwrap();
    swarm.machines[0].start_again();
    let former = &swarm.machines[0];
    former.block_on(soon(former.manager().removed()));
    swarm.machines[0].stop();
    swarm.machines[0].wipe();
    let managers = vec![swarm.machines[1].address.to_string()];
    swarm.machines[0].join(managers);
    let back = &swarm.machines[0];
    back.block_on(soon(back.manager().ready())).unwrap();
}

#[test]
fn managers_of_before_a_forced_new_cluster_that_have_a_leader_hear_of_it() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    (0..3).for_each(|index| swarm.machines[index].kill());
    swarm.machines[1].force_new_cluster();
    let alone = &swarm.machines[1];
    alone.block_on(soon(alone.manager().ready())).unwrap();
    swarm.machines[1].stop();
    [0, 2].into_iter().for_each(|index| swarm.machines[index].start_again());
    let mut attempt = 0;
    until("they lead each other", || {
        attempt += 1;
        swarm.create(0, &format!("lost{attempt}")).is_ok()
    });
    swarm.machines[1].start_again();
    let is_told = |swarm: &Swarm, index: usize| {
        let former = &swarm.machines[index];
        former.block_on(async { former.manager().removed().now_or_never().is_some() })
    };
    let mut first = 0;
    until("one of them hears of it", || {
        first = 2 - first;
        is_told(&swarm, first)
    });
    swarm.machines[first].stop();
    let second = &swarm.machines[2 - first];
    second.block_on(soon(second.manager().removed()));
}

#[test]
fn a_manager_that_is_elected_at_another_address_says_so() {
    let mut swarm = Swarm::new(2);
    until("all are reachable", || swarm.is_whole());
    let (elected, other) = (swarm.leader(), swarm.follower());
    swarm.machines[other].kill();
    // What its log has more than the other's makes sure who is elected.
    swarm.create(elected, "nobody knows").unwrap_err();
    swarm.machines[elected].stop();
    swarm.machines[elected].move_elsewhere();
    swarm.machines[other].start_again();
    swarm.machines[elected].start_again();
    until("all are reachable", || swarm.is_whole());
    let mut attempt = 0;
    until("writes of the other arrive", || {
        attempt += 1;
        swarm.create(other, &format!("after{attempt}")).is_ok()
    });
}

#[test]
fn recorded_proofs_of_a_session_that_was_left_keep_nobody_alive() {
    let swarm = Swarm::new(1);
    let worker = swarm.add_worker();
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(worker.tls());
    let hello = |resumes: Option<SessionId>| {
        let request = OpenRequest { now: support::now(), resumes, ..OpenRequest::default() };
        let opened = client.stream::<OpenSession>(&at, &request, Duration::from_secs(5));
        let mut session = runtime.block_on(soon(opened)).unwrap();
        let Some(Ok(SessionMessage::Hello(hello))) = runtime.block_on(soon(session.next())) else {
            panic!("the first message greets")
        };
        (session, hello)
    };
    let (first, left) = hello(None);
    let recorded = support::pulse(&worker, &left, vec![machine.address]);
    let (second, now) = hello(Some(left.session.clone()));
    drop(first);
    let own = support::pulse(&worker, &now, vec![machine.address]);
    // Some of its own have to arrive.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(state(machine, worker.node.as_str()), "ready");
    drop(own);
    drop(second);
    until("it is down", || state(machine, worker.node.as_str()) == "down");
    drop(recorded);
}

#[test]
fn the_connections_of_a_removed_node_are_closed() {
    let swarm = Swarm::new(1);
    let worker = swarm.add_worker();
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let client = Client::new(worker.tls());
    let refused = machine.block_on(soon(forward(&client, &at)));
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    assert!(client.is_connected(&at));
    machine.block_on(machine.manager().remove_node(worker.node.as_str(), true)).unwrap();
    machine.block_on(soon(client.disconnected(&at)));
}

async fn forward(client: &Client, at: &str) -> Result<wire::forward::Forwarded, CallError> {
    let asked = Forwarding { operation: Operation::Barrier, again: false };
    client.call::<Forward>(at, &asked, Duration::from_secs(5)).await
}

#[test]
fn a_managers_certificate_is_worth_nothing_to_managers_once_its_node_is_a_worker() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let (leader, follower) = (swarm.leader(), swarm.follower());
    let machine = &swarm.machines[leader];
    let at = machine.address.to_string();
    let papers = swarm.machines[follower].papers.clone();
    let client = Client::new(papers.tls());
    machine.block_on(soon(forward(&client, &at))).unwrap();
    set_role(&swarm, leader, papers.node.as_str(), "worker").unwrap();
    until("it is turned away", || match machine.block_on(soon(forward(&client, &at))) {
        Err(CallError::Refused(refusal)) => refusal.code == Code::PermissionDenied,
        _ => false,
    });
    let issued = machine.block_on(soon(renew(&papers, &at))).unwrap();
    assert_eq!(issued.role, objects::NodeRole::Worker, "it is a node all the same");
}
