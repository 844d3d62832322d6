//! Sessions, certificates and proofs of life against small managers over real connections.

use objects::NodeRole;
use tempfile::TempDir;
use wire::network::NetworkKey;
use wire::session::{Assigned as Given, Assignments, Changed, ManagerPeer, SessionMessage};

use super::*;
use crate::fake_manager::{CLUSTER, FakeManager, Swarm, within};
use crate::{farewell, renewal};

struct Bench {
    _root: TempDir,
    ties: Ties,
    dispatcher: Dispatcher,
}

fn bench(swarm: &Swarm, managers: &[&FakeManager]) -> Bench {
    let root = tempfile::tempdir().unwrap();
    let ties = swarm.member(root.path(), managers, 0).premises.ties;
    Bench { _root: root, dispatcher: Dispatcher::new(ties.clone()), ties }
}

fn assignments() -> SessionMessage {
    SessionMessage::Assignments(Assignments::Complete(Given::default()))
}

#[tokio::test]
async fn a_manager_that_is_gone_is_replaced_by_another_and_reports_go_there() {
    let swarm = Swarm::new();
    let (mut one, mut two) = (FakeManager::start(&swarm, "m1"), FakeManager::start(&swarm, "m2"));
    let bench = bench(&swarm, &[&one, &two]);
    let mut session = within(bench.dispatcher.connect()).await;
    let (mut first, second) = tokio::select! {
        opened = one.session() => ((one, opened), two),
        opened = two.session() => ((two, opened), one),
    };
    first.1.say.send(assignments()).unwrap();
    assert!(within(session.next()).await.is_some());
    bench.dispatcher.report(vec![("t".into(), TaskStatus::default())]).await.unwrap();
    assert_eq!(within(first.0.reports.recv()).await.unwrap().statuses.len(), 1);
    first.0.die();
    assert!(within(session.next()).await.is_none());
    assert!(matches!(bench.dispatcher.report(Vec::new()).await, Err(ReportError::NoSession)));
    let mut second = second;
    let mut session = within(bench.dispatcher.connect()).await;
    let opened = second.session().await;
    // The new manager knows that it is the same daemon.
    assert!(opened.request.resumes.is_some());
    bench.dispatcher.report(Vec::new()).await.unwrap();
    assert!(within(second.reports.recv()).await.is_some());
    drop(opened);
    assert!(within(session.next()).await.is_none());
}

#[tokio::test]
async fn keys_of_networks_are_learned_and_the_generation_is_told() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    bench.ties.encryption_generation.send_replace(7);
    let mut session = within(bench.dispatcher.connect()).await;
    let first = manager.session().await;
    assert_eq!(first.request.encryption_generation, 7);
    let keys = |number| vec![NetworkKey { number, key: "secret".into() }];
    for (said, known) in [(keys(1), keys(1)), (keys(2), keys(2)), (Vec::new(), keys(2))] {
        let changed = Changed { network_keys: Some(said), ..Changed::default() };
        first.say.send(SessionMessage::Changed(Box::new(changed))).unwrap();
        first.say.send(assignments()).unwrap();
        assert!(within(session.next()).await.is_some());
        assert_eq!(*bench.ties.network_keys.borrow(), known);
    }
}

#[tokio::test]
async fn a_new_description_changes_the_session_over_without_an_end() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    let mut session = within(bench.dispatcher.connect()).await;
    let first = manager.session().await;
    bench.ties.description.send_modify(|description| description.hostname = "renamed".to_owned());
    let next = async {
        let second = manager.session().await;
        assert_eq!(second.request.description.hostname, "renamed");
        // The manager ends the old one at once: that must not end the node's session.
        drop(first);
        second.say.send(assignments()).unwrap();
        second
    };
    let (second, given) = tokio::join!(next, within(session.next()));
    assert!(given.is_some());
    drop(second);
    assert!(within(session.next()).await.is_none());
}

#[tokio::test]
async fn what_a_session_tells_is_learned() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    let mut session = within(bench.dispatcher.connect()).await;
    let opened = manager.session().await;
    assert_eq!(bench.ties.managers.list().len(), 1, "a manager that knows of none is not believed");
    let root = pki::Authority::create(requests::now()).unwrap().certificate;
    let both = format!("{}{root}", swarm.authority.certificate);
    let peers: Vec<ManagerPeer> = ["m1", "m2"]
        .iter()
        .map(|node| ManagerPeer {
            node: (*node).into(),
            address: format!("127.0.0.1:{}", node.len()),
            weight: 1,
        })
        .collect();
    opened.changed(Changed { managers: Some(peers), root: Some(both.clone()), ..Changed::default() });
    opened.say.send(assignments()).unwrap();
    within(session.next()).await;
    assert_eq!(bench.ties.managers.list().len(), 2);
    assert_eq!(bench.ties.credentials.certified().files.roots, both);
}

#[tokio::test]
async fn a_session_that_the_manager_forgot_ends_and_a_removed_node_is_told() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    let mut session = within(bench.dispatcher.connect()).await;
    let opened = manager.session().await;
    manager.answer(|answers| answers.forgets = true);
    assert!(bench.dispatcher.report(Vec::new()).await.is_err());
    assert!(within(session.next()).await.is_none());
    drop(session);
    opened.closed().await;
    manager.answer(|answers| answers.removes = true);
    let again = bench.dispatcher.connect();
    tokio::select! {
        () = within(bench.ties.removed.cancelled()) => {}
        _ = again => panic!("it was refused"),
    }
    assert_eq!(*bench.ties.trouble.borrow(), ServerOptions::REMOVED);
}

#[tokio::test]
async fn a_promoted_node_gets_its_certificate_while_its_session_goes_on() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    let stopping = CancellationToken::new();
    let renewing = tokio::spawn(renewal::run(bench.ties.clone(), stopping.clone()));
    let mut session = within(bench.dispatcher.connect()).await;
    let opened = manager.session().await;
    manager.answer(|answers| answers.role = NodeRole::Manager);
    let mut node = objects::Node::default();
    node.internal.certified_role = NodeRole::Manager;
    opened.changed(Changed { node: Some(node), ..Changed::default() });
    opened.say.send(assignments()).unwrap();
    within(session.next()).await;
    let mut certified = bench.ties.credentials.follow();
    let role = within(certified.wait_for(|certified| certified.identity.role == NodeRole::Manager)).await;
    assert_eq!(role.unwrap().identity.cluster.as_str(), CLUSTER);
    opened.say.send(assignments()).unwrap();
    assert!(within(session.next()).await.is_some());
    // What is on disk is what is used.
    let files = pki::NodeFiles::load(&bench._root.path().join("certificates")).unwrap().unwrap();
    assert_eq!(files, bench.ties.credentials.certified().files);
    stopping.cancel();
    renewing.await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_off_past_its_certificates_end_comes_back_by_its_key() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let root = tempfile::tempdir().unwrap();
    let ties = swarm.member(root.path(), &[&manager], 7200).premises.ties;
    assert!(ties.credentials.certified().is_expired(requests::now()));
    let stopping = CancellationToken::new();
    let renewing = tokio::spawn(renewal::run(ties.clone(), stopping.clone()));
    let session = within(Dispatcher::new(ties.clone()).connect()).await;
    manager.session().await;
    assert!(!ties.credentials.certified().is_expired(requests::now()));
    drop(session);
    stopping.cancel();
    renewing.await.unwrap();
}

#[tokio::test]
async fn pulses_go_on_between_two_sessions_and_a_hold_is_announced() {
    let swarm = Swarm::new();
    let mut manager = FakeManager::start(&swarm, "m1");
    let bench = bench(&swarm, &[&manager]);
    let mut hearing = rpc::pulse::PulseServer::bind(manager.address.parse().unwrap()).unwrap();
    let stopping = CancellationToken::new();
    let beating = tokio::spawn(crate::pulse::run(bench.ties.clone(), stopping.clone()));
    let mut session = within(bench.dispatcher.connect()).await;
    let opened = manager.session().await;
    let key = |node: &objects::NodeId| Some(rpc::pulse::PulseKey::derive(b"secret", node));
    assert_eq!(within(hearing.next(key)).await.unwrap().node.as_str(), "node1");
    farewell::hold(&bench.ties).await;
    let goodbye = within(manager.goodbyes.recv()).await.unwrap();
    assert_eq!(goodbye.farewell, wire::session::Farewell::Hold { ms: 30_000 });
    drop(opened);
    assert!(within(session.next()).await.is_none());
    for _ in 0..3 {
        within(hearing.next(key)).await.unwrap();
    }
    stopping.cancel();
    beating.await.unwrap();
}
