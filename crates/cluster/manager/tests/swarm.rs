//! Three managers on loopback addresses, with their certificates, servers and logs: what holds when some of them go.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use docker::filters::Filters;
use manager::{Code, ManagerError};
use rpc::{CallError, Client};
use support::{Swarm, filter, join, open, renew, set_role, soon, spec, until, version};
use wire::forward::{FirstCertificate, Forward, Forwarding, Operation, Outcome};
use wire::session::{Assignments, SessionMessage};

/// What no election takes, on a busy machine either; how long they take is measured by benchmarks.
const HANGS: Duration = Duration::from_secs(15);

#[test]
fn three_managers_are_one_swarm_and_any_of_them_takes_writes() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    for (index, machine) in swarm.machines.iter().enumerate() {
        swarm.create(index, &format!("web{index}")).unwrap();
        // Read where it was written: at once, leader or not.
        assert!(machine.manager().service(&format!("web{index}"), false).is_ok());
    }
    let nodes = swarm.machines[0].manager().nodes(&Filters::default()).unwrap();
    let leaders = nodes.iter().filter(|node| node["ManagerStatus"]["Leader"] == true).count();
    assert_eq!((nodes.len(), leaders), (3, 1));
    for machine in &swarm.machines {
        machine.block_on(soon(machine.manager().barrier())).unwrap();
        assert_eq!(machine.manager().services(&Filters::default(), false).unwrap().len(), 3);
    }
    let error = swarm.create(swarm.follower(), "web0").unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let text = "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web0 already exists";
    assert_eq!(error.to_string(), text, "as the leader says it");
}

#[test]
fn a_leader_killed_under_load_loses_no_acknowledged_write() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let leader = swarm.leader();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .filter(|index| *index != leader)
        .map(|index| {
            let (manager, stop) = (swarm.machines[index].manager().clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let (mut written, mut gap, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        let name = format!("w{index}-{number}");
                        if manager.create_service(spec(&name, 0), None).await.is_ok() {
                            written.push(name);
                            gap = gap.max(last.elapsed());
                            last = Instant::now();
                        }
                    }
                    (written, gap)
                })
            })
        })
        .collect();
    let survivor = (0..3).find(|index| *index != leader).unwrap();
    let count = |swarm: &Swarm| {
        swarm.machines[survivor].manager().services(&Filters::default(), false).map_or(0, |found| found.len())
    };
    until("writes are taken", || count(&swarm) > 20);
    swarm.machines[leader].kill();
    let before = count(&swarm);
    until("writes are taken again", || count(&swarm) > before + 20);
    stop.store(true, Ordering::Relaxed);
    let written: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let machine = &swarm.machines[survivor];
    machine.block_on(soon(machine.manager().barrier())).unwrap();
    for (names, gap) in &written {
        assert!(*gap < HANGS, "no write for {gap:?}");
        for name in names {
            assert!(machine.manager().service(name, false).is_ok(), "{name} was acknowledged");
        }
    }
    // The old leader comes back as a follower and has everything, too.
    swarm.machines[leader].start_again();
    until("all are reachable", || swarm.is_whole());
    let back = &swarm.machines[leader];
    back.block_on(soon(back.manager().barrier())).unwrap();
    assert!(back.manager().service(&written[0].0[0], false).is_ok());
}

#[test]
fn without_a_quorum_writes_are_refused_and_with_it_they_work_again() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    swarm.create(0, "before").unwrap();
    let survivor = swarm.leader();
    let others: Vec<_> = (0..3).filter(|index| *index != survivor).collect();
    others.iter().for_each(|index| swarm.machines[*index].kill());
    let error = swarm.create(survivor, "refused").unwrap_err();
    assert!(matches!(error, ManagerError::NoLeader), "{error}");
    assert!(error.to_string().contains("The swarm does not have a leader. It's possible"), "{error}");
    until("reads are refused, too", || {
        matches!(
            swarm.machines[survivor].manager().services(&Filters::default(), false),
            Err(ManagerError::NoLeader)
        )
    });
    swarm.machines[others[0]].start_again();
    // One that was refused while this was being found out may be committed all the same: each has a name of its own.
    let mut attempt = 0;
    until("writes work again", || {
        attempt += 1;
        swarm.create(survivor, &format!("after{attempt}")).is_ok()
    });
    let manager = swarm.machines[survivor].manager();
    assert!(manager.service("before", false).is_ok());
}

#[test]
fn a_follower_serves_a_session_and_a_change_of_leader_does_not_end_it() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let worker = swarm.add_worker();
    let (leader, follower) = (swarm.leader(), swarm.follower());
    let at = swarm.machines[follower].address.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(worker.tls());
    let mut session = runtime.block_on(soon(open(&client, &at))).unwrap();
    let mut next = |what: &str| {
        runtime.block_on(soon(session.next())).unwrap_or_else(|| panic!("{what}: it ended")).unwrap()
    };
    let SessionMessage::Hello(hello) = next("hello") else { panic!("the first message greets") };
    let _pulse =
        support::pulse(&worker, &hello, swarm.machines.iter().map(|machine| machine.address).collect());
    assert_eq!(hello.node.id, worker.node);
    assert_eq!(hello.managers.len(), 3);
    assert!(!hello.heartbeat.key.is_empty());
    assert!(matches!(next("complete"), SessionMessage::Assignments(Assignments::Complete(_))));
    let here = &swarm.machines[follower];
    here.block_on(here.manager().create_service(spec("web", 1), None)).unwrap();
    let assigned = |message: SessionMessage| match message {
        SessionMessage::Assignments(Assignments::Incremental { update, .. }) => update.tasks.len(),
        _ => 0,
    };
    while assigned(next("a task")) == 0 {}
    swarm.machines[leader].kill();
    let here = &swarm.machines[follower];
    here.block_on(soon(async {
        while here.manager().create_service(spec("web2", 1), None).await.is_err() {}
    }));
    while assigned(next("a task under the new leader")) == 0 {}
    let node = here.manager().node(worker.node.as_str()).unwrap();
    assert_eq!(node["Status"]["State"], "ready", "{node}");
}

#[test]
fn a_node_whose_session_ended_is_down_and_is_ready_when_it_is_back() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let worker = swarm.add_worker();
    let at = swarm.machines[swarm.follower()].address.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(worker.tls());
    let state = || {
        let manager = swarm.machines[swarm.leader()].manager();
        manager.node(worker.node.as_str()).unwrap()["Status"]["State"].as_str().unwrap().to_owned()
    };
    let session = runtime.block_on(soon(open(&client, &at))).unwrap();
    until("it is ready", || state() == "ready");
    drop(session);
    let took = until("it is down", || state() == "down");
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    let _session = runtime.block_on(soon(open(&client, &at))).unwrap();
    until("it is ready again", || state() == "ready");
}

#[test]
fn a_leader_that_is_demoted_hands_over_and_leaves_consensus() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let leader = swarm.leader();
    let id = swarm.machines[leader].papers.node.clone();
    let follower = swarm.follower();
    set_role(&swarm, follower, id.as_str(), "worker").unwrap();
    let gone = &swarm.machines[leader];
    gone.block_on(soon(gone.manager().removed()));
    until("its status is gone", || {
        let node = swarm.machines[follower].manager().node(id.as_str());
        node.is_ok_and(|node| node.get("ManagerStatus").is_none())
    });
    swarm.create(follower, "after").unwrap();
    // What it gets next is a worker's certificate.
    let at = swarm.machines[follower].address.to_string();
    until("it is certified as a worker", || {
        let issued = gone.block_on(soon(renew(&gone.papers, &at))).unwrap();
        issued.role == objects::NodeRole::Worker
    });
    // Promoted again, it joins with a new log.
    set_role(&swarm, follower, id.as_str(), "manager").unwrap();
    until("it may be certified as a manager", || {
        let machine = &swarm.machines[follower];
        let issued = machine.block_on(soon(renew(&swarm.machines[leader].papers, &at))).unwrap();
        issued.role == objects::NodeRole::Manager
    });
    swarm.machines[leader].stop();
    swarm.machines[leader].wipe();
    let managers = swarm.addresses();
    swarm.machines[leader].join(managers);
    let back = &swarm.machines[leader];
    back.block_on(soon(back.manager().ready())).unwrap();
    until("all are reachable", || swarm.is_whole());
}

#[test]
fn a_demotion_that_costs_the_quorum_is_refused() {
    let mut swarm = Swarm::new(2);
    let (leader, other) = (swarm.leader(), swarm.follower());
    let own = swarm.machines[leader].papers.node.clone();
    let gone = swarm.machines[other].papers.node.clone();
    let third = {
        swarm.add_manager();
        swarm.machines[2].papers.node.clone()
    };
    until("all are reachable", || swarm.is_whole());
    swarm.machines[other].kill();
    until("it is seen to be gone", || {
        let node = swarm.machines[leader].manager().node(gone.as_str());
        node.is_ok_and(|node| node["ManagerStatus"]["Reachability"] == "unreachable")
    });
    let error = set_role(&swarm, leader, third.as_str(), "worker").unwrap_err();
    assert!(error.to_string().contains("this would result in a loss of quorum"), "{error}");
    assert_eq!(error.code(), Code::FailedPrecondition);
    let error = swarm.machines[leader]
        .block_on(swarm.machines[leader].manager().remove_node(own.as_str(), true))
        .unwrap_err();
    assert!(
        error.to_string().contains("is a cluster manager and is a member of the raft cluster"),
        "{error}"
    );
}

#[test]
fn joins_are_refused_with_dockers_words() {
    let swarm = Swarm::new(1);
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let shown = machine.manager().swarm().unwrap();
    let token = shown["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    let wrong = format!("{}{}", &token[..token.len() - 3], "000");
    let refusal = |result: Result<support::Papers, CallError>| match result {
        Err(CallError::Refused(refusal)) => (refusal.code, refusal.message),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    };
    let refused = refusal(machine.block_on(join(&at, &wrong, "127.0.0.1")));
    let text = "A valid join token is necessary to join this cluster".to_owned();
    assert_eq!(refused, (Code::InvalidArgument, text.clone()));
    // An earlier token is worth nothing after a rotation.
    let rotate = manager::ClusterUpdate { rotate_worker_token: true, ..Default::default() };
    let update = machine.manager().update_cluster(version(&shown), Default::default(), rotate);
    machine.block_on(update).unwrap();
    assert_eq!(refusal(machine.block_on(join(&at, &token, "127.0.0.1"))), (Code::InvalidArgument, text));
    assert_eq!(machine.manager().nodes(&Filters::default()).unwrap().len(), 1, "nobody was let in");
    // A worker may not ask what managers ask.
    let worker = swarm.add_worker();
    let client = Client::new(worker.tls());
    let request = wire::managers::HealthRequest::default();
    let asked = client.call::<wire::managers::Health>(&at, &request, Duration::from_secs(5));
    match machine.block_on(soon(asked)) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, Code::PermissionDenied),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_whose_clock_is_off_is_told_so() {
    let swarm = Swarm::new(1);
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let request = wire::join::IssueRequest {
        csr: pki::NodeKey::generate().unwrap().request().unwrap(),
        token: machine.manager().swarm().unwrap()["JoinTokens"]["Worker"].as_str().unwrap().into(),
        hostname: "late".to_owned(),
        now: support::now() + objects::Nanos::from_secs(-86_400),
        ..Default::default()
    };
    // What a machine's own clock says counts when the transport cannot tell.
    let root = machine.papers.roots.clone();
    let client = Client::new(rpc::Tls::joining(&root).unwrap());
    let asked = client.call::<wire::join::Issue>(&at, &request, Duration::from_secs(5));
    match machine.block_on(soon(asked)) {
        Err(CallError::Refused(refusal)) => {
            assert!(refusal.message.contains("the clock of late (127."), "{}", refusal.message);
            assert!(refusal.message.contains("24 h behind"), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_that_asks_to_join_again_is_the_same_node() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let leader = &swarm.machines[swarm.leader()];
    let token = leader.manager().swarm().unwrap()["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    let key = pki::NodeKey::generate().unwrap();
    let client = Client::new(rpc::Tls::joining(&leader.papers.roots).unwrap());
    let ask = |index: usize| {
        let request = wire::join::IssueRequest {
            csr: key.request().unwrap(),
            token: token.as_str().into(),
            hostname: "again".to_owned(),
            now: support::now(),
            ..Default::default()
        };
        let at = swarm.machines[index].address.to_string();
        let asked = client.call::<wire::join::Issue>(&at, &request, Duration::from_secs(5));
        swarm.machines[index].block_on(soon(asked)).unwrap()
    };
    let first = ask(0);
    assert!(key.is_certified_by(&first.certificate));
    for index in [0, 1, 2] {
        let again = ask(index);
        assert_eq!((&again.node, &again.certificate), (&first.node, &first.certificate));
    }
    assert_eq!(leader.manager().nodes(&Filters::default()).unwrap().len(), 4);
    leader.block_on(leader.manager().remove_node(first.node.as_str(), true)).unwrap();
    let other = ask(swarm.leader());
    assert_ne!(other.node, first.node, "the one that was removed is refused for ever");
    assert!(key.is_certified_by(&other.certificate));
}

#[test]
fn a_removed_node_is_refused_everywhere() {
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let worker = swarm.add_worker();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(worker.tls());
    let at = swarm.machines[swarm.follower()].address.to_string();
    let mut session = runtime.block_on(soon(open(&client, &at))).unwrap();
    let remover = &swarm.machines[swarm.leader()];
    remover.block_on(remover.manager().remove_node(worker.node.as_str(), true)).unwrap();
    runtime.block_on(soon(async {
        loop {
            match session.next().await {
                Some(Ok(SessionMessage::Bye(bye))) => break assert!(bye.is_removed),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }));
    for machine in swarm.running() {
        machine.block_on(soon(machine.manager().barrier())).unwrap();
        let asked = runtime.block_on(soon(renew(&worker, &machine.address.to_string())));
        let Err(CallError::Refused(refusal)) = asked else { panic!("{asked:?}") };
        assert!(refusal.message.contains("node has been removed from the swarm"), "{}", refusal.message);
        assert_eq!(refusal.code, Code::PermissionDenied);
    }
}

#[test]
fn a_forced_new_cluster_goes_on_alone_and_refuses_those_of_before() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    swarm.create(0, "before").unwrap();
    (0..3).for_each(|index| swarm.machines[index].kill());
    swarm.machines[1].force_new_cluster();
    let alone = &swarm.machines[1];
    alone.block_on(soon(alone.manager().ready())).unwrap();
    assert!(alone.manager().service("before", false).is_ok());
    swarm.create(1, "after").unwrap();
    swarm.machines[0].start_again();
    std::thread::sleep(Duration::from_secs(2));
    let managers = swarm.machines[1].manager().nodes(&filter("role", "manager")).unwrap();
    assert_eq!(managers.len(), 1, "the others are to be workers");
    assert!(swarm.machines[1].manager().is_leader());
    assert!(matches!(swarm.create(0, "elsewhere"), Err(ManagerError::NoLeader)));
}

#[test]
fn a_manager_that_comes_back_at_another_address_is_found_there() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let follower = swarm.follower();
    swarm.machines[follower].stop();
    swarm.machines[follower].move_elsewhere();
    swarm.machines[follower].start_again();
    let moved = &swarm.machines[follower];
    moved.block_on(soon(moved.manager().ready())).unwrap();
    until("its new address is known", || {
        let node = moved.manager().node(moved.papers.node.as_str());
        node.is_ok_and(|node| node["ManagerStatus"]["Addr"] == moved.address.to_string())
    });
    until("all are reachable", || swarm.is_whole());
    swarm.create(follower, "after").unwrap();
}

#[test]
fn a_new_root_replaces_the_old_one_once_every_node_has_its_certificate() {
    let swarm = Swarm::new(1);
    let machine = &swarm.machines[0];
    let at = machine.address.to_string();
    let before = machine.manager().swarm().unwrap();
    let mut spec: objects::ClusterSpec = serde_json::from_value(before["Spec"].clone()).unwrap();
    spec.ca_config.force_rotate += 1;
    machine.block_on(machine.manager().update_cluster(version(&before), spec, Default::default())).unwrap();
    let under_way = machine.manager().swarm().unwrap();
    assert_eq!(under_way["RootRotationInProgress"], true);
    let issued = machine.block_on(soon(renew(&machine.papers, &at))).unwrap();
    let mut description = support::description("host1");
    description.tls_info = pki::tls_info(&issued.root, &issued.certificate).unwrap();
    let opening = wire::session::OpenRequest { description, now: support::now(), ..Default::default() };
    let opened = machine.manager().open_session(&machine.papers.node, opening, manager::Origin::Here);
    let _session = machine.block_on(soon(opened)).unwrap();
    until("the root has changed", || machine.manager().swarm().unwrap()["RootRotationInProgress"] == false);
    let after = machine.manager().swarm().unwrap();
    assert_ne!(before["TLSInfo"]["TrustRoot"], after["TLSInfo"]["TrustRoot"]);
    assert_ne!(before["JoinTokens"]["Worker"], after["JoinTokens"]["Worker"]);
    assert_ne!(before["JoinTokens"]["Manager"], after["JoinTokens"]["Manager"]);
}

#[test]
fn a_key_to_unlock_is_made_changed_and_taken_away() {
    let swarm = Swarm::new(1);
    let machine = &swarm.machines[0];
    let manager = machine.manager();
    let mut watch = manager.unlock_watch();
    let update = |lock: bool, rotate: bool| {
        let shown = manager.swarm().unwrap();
        let mut spec: objects::ClusterSpec = serde_json::from_value(shown["Spec"].clone()).unwrap();
        spec.encryption_config.auto_lock_managers = lock;
        let update = manager::ClusterUpdate { rotate_manager_unlock_key: rotate, ..Default::default() };
        machine.block_on(manager.update_cluster(version(&shown), spec, update)).unwrap();
        let seen = machine.block_on(soon(watch.wait_for(|seen| seen.key == manager.unlock_key().unwrap())));
        seen.unwrap().clone()
    };
    let mut update = update;
    let first = update(true, false);
    assert!(first.key.starts_with("SWMKEY-1-"));
    let second = update(true, true);
    assert_ne!(first.key, second.key);
    assert!(second.version > first.version);
    assert!(update(false, false).key.is_empty());
    assert!(!format!("{second:?}").contains(&second.key));
}

/// What the leader answers a manager that hands an operation over, for the second time with `again`.
fn forward(swarm: &Swarm, operation: &Operation, again: bool) -> Result<Outcome, CallError> {
    let (leader, other) = (&swarm.machines[swarm.leader()], &swarm.machines[swarm.follower()]);
    let asked = Forwarding { operation: operation.clone(), again };
    let (client, address) = (Client::new(other.papers.tls()), at(leader));
    let called = client.call::<Forward>(&address, &asked, Duration::from_secs(5));
    other.block_on(soon(called)).map(|done| done.outcome)
}

#[test]
fn an_operation_that_is_forwarded_again_is_done_once() {
    let swarm = Swarm::new(2);
    until("all are reachable", || swarm.is_whole());
    let leader = &swarm.machines[swarm.leader()];
    let other = &swarm.machines[swarm.follower()];
    let forward = |operation: &Operation, again: bool| forward(&swarm, operation, again);
    let code = |result: Result<Outcome, CallError>| match result {
        Err(CallError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    let create = Operation::CreateService {
        id: "service1".into(),
        spec: Box::new(spec("web", 0)),
        registry_auth: Some("s3cr3t".into()),
    };
    assert!(!format!("{create:?}").contains("s3cr3t"));
    let first = forward(&create, false).unwrap();
    assert_eq!(forward(&create, true).unwrap(), first);
    let read = version(&leader.manager().service("web", false).unwrap());
    let update = manager::ServiceUpdate {
        version: read,
        spec: spec("web", 2),
        registry_auth: None,
        registry_auth_from: manager::RegistryAuthFrom::Spec,
        rollback: false,
    };
    let update = Operation::UpdateService { reference: "web".to_owned(), update: Box::new(update) };
    forward(&update, false).unwrap();
    forward(&update, true).unwrap();
    assert_eq!(code(forward(&update, false)), Code::Unknown, "somebody else's request of the same kind");
    let remove = Operation::RemoveService { reference: "web".to_owned() };
    forward(&remove, false).unwrap();
    forward(&remove, true).unwrap();
    assert_eq!(code(forward(&remove, false)), Code::NotFound);
    let token = leader.manager().swarm().unwrap()["JoinTokens"]["Worker"].as_str().unwrap().into();
    let issue = Operation::Issue(Box::new(FirstCertificate {
        node: "newnode".into(),
        csr: pki::NodeKey::generate().unwrap().request().unwrap(),
        token,
        availability: objects::Availability::Active,
        address: "127.0.0.1:2377".to_owned(),
        hostname: "new".to_owned(),
    }));
    let first = forward(&issue, false).unwrap();
    assert_eq!(forward(&issue, true).unwrap(), first);
    let node = leader.manager().node("newnode").unwrap();
    assert_eq!(node["Status"]["Addr"], "127.0.0.1");
    // A manager that does not lead sends whoever believes so to the one that does.
    let asked = Forwarding { operation: Operation::Barrier, again: false };
    let client = Client::new(other.papers.tls());
    let elsewhere = at(other);
    let called = client.call::<Forward>(&elsewhere, &asked, Duration::from_secs(5));
    let Err(CallError::Refused(refusal)) = other.block_on(soon(called)) else { panic!("it does not lead") };
    assert_eq!(refusal.leader, Some(at(leader)));
}

#[test]
fn what_cannot_be_told_from_its_result_is_done_once_all_the_same() {
    let swarm = Swarm::new(2);
    until("all are reachable", || swarm.is_whole());
    let leader = &swarm.machines[swarm.leader()];
    let forward = |operation: &Operation, again: bool| forward(&swarm, operation, again);
    swarm.create(0, "web").unwrap();
    let read = version(&leader.manager().service("web", false).unwrap());
    let update = |version, replicas, rollback| {
        let update = manager::ServiceUpdate {
            version,
            spec: spec("web", replicas),
            registry_auth: None,
            registry_auth_from: manager::RegistryAuthFrom::Spec,
            rollback,
        };
        Operation::UpdateService { reference: "web".to_owned(), update: Box::new(update) }
    };
    forward(&update(read, 2, false), false).unwrap();
    let read = version(&leader.manager().service("web", false).unwrap());
    let back = update(read, 2, true);
    forward(&back, false).unwrap();
    forward(&back, true).unwrap();
    let replicas =
        || leader.manager().service("web", false).unwrap()["Spec"]["Mode"]["Replicated"]["Replicas"].clone();
    assert_eq!(replicas(), 0, "rolled back once");
    let shown = leader.manager().swarm().unwrap();
    let mut settings: objects::ClusterSpec = serde_json::from_value(shown["Spec"].clone()).unwrap();
    let root = pki::Authority::create(support::now()).unwrap();
    settings.ca_config.signing_ca_cert.clone_from(&root.certificate);
    settings.ca_config.signing_ca_key.clone_from(&root.key);
    let update = Operation::UpdateCluster {
        version: version(&shown),
        spec: Box::new(settings),
        update: manager::ClusterUpdate { rotate_worker_token: true, ..Default::default() },
        request: "request1".to_owned(),
    };
    forward(&update, false).unwrap();
    let tokens = || leader.manager().swarm().unwrap()["JoinTokens"].clone();
    let rotated = tokens();
    assert_ne!(rotated, shown["JoinTokens"]);
    forward(&update, true).unwrap();
    assert_eq!(tokens(), rotated, "rotated once");
}

fn at(machine: &support::Machine) -> String {
    machine.address.to_string()
}

#[test]
fn without_a_leader_only_a_manager_whose_certificate_has_run_out_signs_for_itself() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    swarm.machines[0].kill();
    swarm.machines[1].kill();
    let alone = &swarm.machines[2];
    let csr = alone.papers.key.request().unwrap();
    let refused = alone.block_on(soon(alone.manager().renew_own(&csr, false)));
    assert!(matches!(refused, Err(ManagerError::NoLeader)), "{refused:?}");
    let issued = alone.block_on(soon(alone.manager().renew_own(&csr, true))).unwrap();
    assert_eq!((issued.node, issued.role), (alone.papers.node.clone(), objects::NodeRole::Manager));
    assert!(alone.papers.key.is_certified_by(&issued.certificate));
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let leader = swarm.leader();
    let leaving = &swarm.machines[leader];
    assert!(
        leaving.manager().may_leave().unwrap_err().to_string().starts_with("You are attempting to leave")
    );
    leaving.block_on(soon(leaving.manager().leave_raft(true))).unwrap();
    leaving.block_on(soon(leaving.manager().removed()));
    swarm.machines[leader].stop();
    let stays = swarm.leader();
    swarm.create(stays, "after").unwrap();
    until("two managers are left", || {
        let nodes = swarm.machines[stays].manager().nodes(&Filters::default()).unwrap();
        nodes.iter().filter(|node| node.get("ManagerStatus").is_some()).count() == 2
    });
}

#[test]
fn a_node_that_opens_sessions_again_and_again_is_told_to_wait() {
    let swarm = Swarm::new(1);
    let worker = swarm.add_worker();
    let machine = &swarm.machines[0];
    let client = Client::new(worker.tls());
    for _ in 0..3 {
        machine.block_on(soon(open(&client, &at(machine)))).unwrap();
    }
    let Err(CallError::Refused(refusal)) = machine.block_on(soon(open(&client, &at(machine)))) else {
        panic!("the fourth is too much")
    };
    assert_eq!(refusal.code, Code::Unavailable);
    let text = "exceeded rate limit count of node registration attempts";
    assert!(refusal.message.ends_with(text), "{}", refusal.message);
    // A daemon that lost its connection is not held up.
    let request = wire::session::OpenRequest {
        now: support::now(),
        resumes: Some(wire::session::SessionId("before".to_owned())),
        ..Default::default()
    };
    let address = at(machine);
    let resumed = client.stream::<wire::session::OpenSession>(&address, &request, Duration::from_secs(5));
    machine.block_on(soon(resumed)).unwrap();
}

#[test]
fn a_manager_that_is_cut_off_sends_its_nodes_elsewhere() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let worker = swarm.add_worker();
    let follower = swarm.follower();
    let at = swarm.machines[follower].address.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::new(worker.tls());
    let mut session = runtime.block_on(soon(open(&client, &at))).unwrap();
    (0..3).filter(|index| *index != follower).for_each(|index| swarm.machines[index].kill());
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
    let Err(CallError::Refused(refusal)) = runtime.block_on(soon(open(&client, &at))) else {
        panic!("it takes nobody")
    };
    assert_eq!(refusal.code, Code::Unavailable);
}

#[test]
fn leaders_that_are_killed_one_after_another_are_replaced_each_time() {
    let mut swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    for round in 0..rounds {
        let leader = swarm.leader();
        swarm.machines[leader].kill();
        let killed = Instant::now();
        let next = (0..3).find(|index| swarm.machines[*index].is_running()).unwrap();
        swarm.create(next, &format!("round{round}")).unwrap();
        let took = killed.elapsed();
        assert!(took < HANGS, "round {round}: {took:?}");
        swarm.machines[leader].start_again();
        until("all are reachable", || swarm.is_whole());
    }
    let found = swarm.machines[swarm.leader()].manager().services(&Filters::default(), false).unwrap();
    assert_eq!(found.len(), rounds);
}

#[test]
fn managers_that_join_at_the_same_time_are_all_taken_in() {
    let mut swarm = Swarm::new(1);
    let addresses = swarm.addresses();
    let mut joining: Vec<_> = (0..4).map(|_| swarm.new_manager()).collect();
    joining.iter_mut().for_each(|machine| machine.join(addresses.clone()));
    for machine in joining {
        machine.block_on(soon(machine.manager().ready())).unwrap();
        swarm.machines.push(machine);
    }
    until("all are reachable", || swarm.is_whole());
}
