//! What trust decides, in tables and over whole rotations in random order.

use objects::{
    CaConfig, Cluster, ExternalCa, Nanos, Node, NodeId, NodeRole, RootRotation, Timestamp, TlsInfo,
};
use proptest::prelude::*;
use store::{Store, Write};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: i64 = 86_400;

fn after(seconds: i64) -> Timestamp {
    NOW + Nanos::from_secs(seconds)
}

/// The root `name`, with a key unless it is somebody else's.
fn root(name: &str, has_key: bool) -> KnownRoot {
    KnownRoot {
        certificate: name.into(),
        key: if has_key { format!("key of {name}") } else { String::new() },
        tls_info: issuer(name),
        valid_until: after(2 * 366 * DAY),
    }
}

fn issuer(root: &str) -> TlsInfo {
    TlsInfo {
        trust_root: root.into(),
        cert_issuer_subject: format!("subject of {root}"),
        cert_issuer_public_key: format!("public key of {root}"),
    }
}

/// A swarm with the root `old`.
fn swarm() -> Cluster {
    let mut cluster = Cluster { id: "c".into(), tls_info: issuer("old"), ..Cluster::default() };
    cluster.internal.ca_certificate = "old".into();
    cluster.internal.ca_key = "key of old".into();
    cluster.internal.worker_token = "worker".into();
    cluster.internal.manager_token = "manager".into();
    cluster.spec = cluster.spec.with_defaults();
    cluster
}

/// As [`swarm`], whose root's key is elsewhere.
fn swarm_outside() -> Cluster {
    let mut cluster = swarm();
    cluster.internal.ca_key.clear();
    cluster
}

/// As [`swarm`], on its way to the root `new`.
fn rotating() -> Cluster {
    let begun = MadeRoot::Begin(NewRoot { root: root("new", true), cross_signed: "cross".into() });
    change(&swarm(), Some(begun))
}

fn change(cluster: &Cluster, root: Option<MadeRoot>) -> Cluster {
    let settings = Settings { root, ..keep(cluster) };
    updated(cluster, settings, fresh(), NOW)
}

fn keep(cluster: &Cluster) -> Settings {
    Settings {
        spec: cluster.spec.clone(),
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: false,
        root: None,
    }
}

fn fresh() -> FreshSecrets {
    FreshSecrets {
        worker_token: "fresh worker".into(),
        manager_token: "fresh manager".into(),
        unlock_key: "fresh unlock".into(),
    }
}

fn rotate_by_force(cluster: &Cluster) -> CaConfig {
    CaConfig { force_rotate: cluster.internal.last_forced_rotation + 1, ..CaConfig::default() }
}

#[test]
fn what_is_wanted_of_the_root_follows_from_what_there_is() {
    let check =
        |cluster: &Cluster, wanted: CaConfig, given: Option<KnownRoot>, expect: Result<RootPlan, &str>| {
            let found = plan(cluster, &wanted, given, NOW).map_err(|refusal| refusal.to_string());
            assert_eq!(found, expect.map_err(str::to_owned));
        };
    let plan = |change, must_answer| Ok(RootPlan { change, must_answer });
    let begin = |given, signer| plan(RootChange::Begin { given, signer }, None);
    let nothing = CaConfig::default;

    check(&swarm(), nothing(), None, plan(RootChange::Keep, None));
    let current = Some((ExternalRoot::Current, "old".to_owned()));
    check(&swarm_outside(), nothing(), None, plan(RootChange::Keep, current));
    check(&rotating(), nothing(), None, plan(RootChange::Keep, None));

    check(&swarm(), rotate_by_force(&swarm()), None, begin(None, CrossSigner::Swarm));
    check(&rotating(), rotate_by_force(&rotating()), None, begin(None, CrossSigner::Swarm));
    let outside = swarm_outside();
    check(&outside, rotate_by_force(&outside), None, begin(None, CrossSigner::External));

    check(
        &swarm(),
        nothing(),
        Some(root("given", true)),
        begin(Some(root("given", true)), CrossSigner::Swarm),
    );
    let desired = Some((ExternalRoot::Desired, "given".to_owned()));
    let given = Some(root("given", false));
    let change = RootChange::Begin { given: given.clone(), signer: CrossSigner::Swarm };
    check(&swarm(), nothing(), given.clone(), plan(change, desired));
    let refusal = "rotating from one external CA to a different external CA is not supported";
    check(&outside, nothing(), given, Err(refusal));
    let settled = RootChange::Settle(root("old", true));
    check(&rotating(), nothing(), Some(root("old", true)), plan(settled, None));
    let goes_on = RootChange::GoOn(root("new", true));
    check(&rotating(), nothing(), Some(root("new", true)), plan(goes_on, None));
}

#[test]
fn roots_that_will_not_do_are_refused_in_dockers_words() {
    let refusal = |wanted: CaConfig, given| plan(&swarm(), &wanted, given, NOW).unwrap_err().to_string();
    let alone = CaConfig { signing_ca_key: "key".into(), ..CaConfig::default() };
    assert_eq!(
        refusal(alone, None),
        "if a signing CA key is provided, the signing CA cert must also be provided"
    );
    let old = KnownRoot { valid_until: after(365 * DAY), ..root("given", true) };
    assert_eq!(refusal(CaConfig::default(), Some(old)), "CA certificate expires too soon");
    let other = ExternalCa { protocol: "acme".into(), ..ExternalCa::default() };
    let other = CaConfig { external_cas: vec![other], ..CaConfig::default() };
    assert_eq!(refusal(other, None), "invalid protocol: \"acme\"");
    let nobody = TrustError::NoExternal(ExternalRoot::Desired).to_string();
    let words =
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate";
    assert_eq!(nobody, words);
}

#[test]
fn a_rotation_shows_the_new_issuer_under_the_old_root() {
    let cluster = rotating();
    assert!(cluster.root_rotation_in_progress);
    assert_eq!(cluster.tls_info, TlsInfo { trust_root: "old".into(), ..issuer("new") });
    assert_eq!(cluster.internal.ca_certificate, "old");
    assert_eq!(cluster.internal.worker_token, "worker");
    assert_eq!(cluster.internal.issuer_since, NOW);
}

#[test]
fn a_finished_rotation_trusts_the_new_root_alone_and_has_new_tokens() {
    let cluster = finished(&rotating(), "w".into(), "m".into()).expect("a rotation");
    assert!(!cluster.root_rotation_in_progress);
    assert_eq!(cluster.tls_info, issuer("new"));
    assert_eq!(cluster.internal.ca_certificate, "new");
    assert_eq!(cluster.internal.ca_key, "key of new");
    assert_eq!((cluster.internal.worker_token.as_str(), cluster.internal.manager_token.as_str()), ("w", "m"));
    assert_eq!(finished(&cluster, "w".into(), "m".into()), None);
}

#[test]
fn a_rotation_can_be_given_up() {
    let cluster = change(&rotating(), Some(MadeRoot::Settle(root("old", true))));
    assert!(!cluster.root_rotation_in_progress);
    assert_eq!(cluster.tls_info, issuer("old"));
    assert_eq!(cluster.internal.root_rotation, None);
    // A node that already has a certificate of the root given up is asked to come back.
    let store = store_of(&cluster, &[node("n", "new")]);
    assert_eq!(advance(&store, None, after(60)).writes.len(), 1);
}

#[test]
fn the_key_of_the_next_root_can_be_brought_later_or_taken_away() {
    let cluster = change(&rotating(), Some(MadeRoot::GoOn(root("new", false))));
    let next = cluster.internal.root_rotation.expect("it goes on");
    assert_eq!((next.ca_key.as_str(), next.cross_signed.as_str()), ("", "cross"));
}

#[test]
fn a_roots_key_does_not_show_in_debug_output() {
    let plan = RootPlan { change: RootChange::Settle(root("old", true)), must_answer: None };
    assert!(!format!("{plan:?}").contains("\"key of old"), "{plan:?}");
}

#[test]
fn keys_that_come_with_settings_do_not_stay_in_them() {
    let mut settings = keep(&swarm());
    settings.spec.ca_config.signing_ca_cert = "given".into();
    settings.spec.ca_config.signing_ca_key = "key of given".into();
    settings.spec.ca_config.force_rotate = 4;
    let cluster = updated(&swarm(), settings, fresh(), NOW);
    assert_eq!(cluster.spec.ca_config.signing_ca_cert, "");
    assert_eq!(cluster.spec.ca_config.signing_ca_key, "");
    assert_eq!(cluster.internal.last_forced_rotation, 4);
}

#[test]
fn tokens_and_the_lock_change_when_asked_and_not_otherwise() {
    let check = |was: (bool, &str), locks: bool, rotate: bool, expect: (&str, u64)| {
        let mut cluster = swarm();
        cluster.spec.encryption_config.auto_lock_managers = was.0;
        cluster.internal.unlock_key = was.1.into();
        let mut settings = Settings { rotate_unlock_key: rotate, ..keep(&cluster) };
        settings.spec.encryption_config.auto_lock_managers = locks;
        let next = updated(&cluster, settings, fresh(), NOW).internal;
        assert_eq!((next.unlock_key.as_str(), next.unlock_key_version), expect);
        assert_eq!(next.worker_token, "worker");
    };
    check((false, ""), false, false, ("", 0));
    check((false, ""), false, true, ("", 0));
    check((false, ""), true, false, ("fresh unlock", 1));
    check((true, "key"), true, false, ("key", 0));
    check((true, "key"), true, true, ("fresh unlock", 1));
    check((true, "key"), false, false, ("", 1));
    check((true, "key"), false, true, ("", 1));

    let settings = Settings { rotate_worker_token: true, ..keep(&swarm()) };
    let next = updated(&swarm(), settings, fresh(), NOW).internal;
    assert_eq!((next.worker_token.as_str(), next.manager_token.as_str()), ("fresh worker", "manager"));
}

#[test]
fn a_removed_node_is_refused_until_its_certificate_is_long_expired() {
    let mut gone = node("gone", "old");
    gone.internal.certified_until = after(10 * DAY);
    let cluster = removed(&swarm(), &gone, NOW);
    assert!(is_removed(&cluster, &gone.id));
    assert!(!is_removed(&cluster, &NodeId::from("other")));
    let unrecorded = removed(&cluster, &node("unrecorded", "old"), after(16 * DAY));
    assert!(is_removed(&unrecorded, &gone.id));
    let until = unrecorded.internal.removed_nodes[&NodeId::from("unrecorded")];
    assert_eq!(until, after((16 + 90 + 7) * DAY));
    let later = removed(&unrecorded, &node("third", "old"), after(18 * DAY));
    assert!(!is_removed(&later, &gone.id) && is_removed(&later, &NodeId::from("unrecorded")));
}

#[test]
fn a_certified_node_has_nothing_left_to_renew() {
    let mut asked = node("n", "old");
    asked.internal.must_renew = true;
    let node = certified(&asked, "chain".into(), NodeRole::Manager, NOW, after(DAY));
    assert!(!node.internal.must_renew);
    assert_eq!(node.internal.certificate, "chain");
    assert_eq!(node.internal.certified_role, NodeRole::Manager);
    assert_eq!((node.internal.certified_at, node.internal.certified_until), (NOW, after(DAY)));
}

fn node(id: &str, reported: &str) -> Node {
    let mut node = Node { id: id.into(), ..Node::default() };
    node.description.tls_info = issuer(reported);
    node
}

fn store_of(cluster: &Cluster, nodes: &[Node]) -> Store {
    let mut store = Store::new();
    let nodes = nodes.iter().cloned().map(|node| Write::Create(node.into()));
    let writes: Vec<_> = std::iter::once(Write::Create(cluster.clone().into())).chain(nodes).collect();
    store.apply(1, NOW, &writes).expect("a new store");
    store
}

fn crowd(count: usize, reported: &str) -> Vec<Node> {
    (0..count).map(|number| node(&format!("n{number:03}"), reported)).collect()
}

#[test]
fn nodes_are_asked_in_batches() {
    let mut store = store_of(&rotating(), &crowd(70, "old"));
    let (mut last, mut index) = (None, 1);
    for (second, asked, left) in [(0, 30, 40), (3, 30, 10), (6, 10, 0), (9, 0, 0)] {
        let step = advance(&store, last, after(second));
        assert_eq!((step.writes.len(), step.done, step.nodes), (asked, 0, 70));
        assert_eq!(step.wake_at, Some(after(second + 3)));
        index += 1;
        store.apply(index, after(second), &step.writes).expect("nobody else writes");
        last = Some(after(second));
        let early = advance(&store, last, after(second + 1));
        assert_eq!((early.writes.len(), early.wake_at), (0, Some(after(second + 3))));
        assert_eq!(store.nodes().filter(|node| !node.internal.must_renew).count(), left);
    }
}

#[test]
fn a_clock_that_was_put_back_does_not_hold_a_batch_up() {
    let store = store_of(&rotating(), &crowd(1, "old"));
    assert_eq!(advance(&store, Some(after(DAY)), NOW).writes.len(), 1);
}

#[test]
fn a_node_that_was_just_certified_gets_time_to_say_so() {
    let mut told = node("n", "old");
    told.internal.certified_at = after(10);
    let store = store_of(&rotating(), &[told]);
    assert!(advance(&store, None, after(20)).writes.is_empty());
    assert_eq!(advance(&store, None, after(40)).writes.len(), 1);
}

#[test]
fn a_node_that_is_down_holds_the_rotation_until_it_is_removed() {
    let mut nodes = crowd(3, "new");
    nodes[1].description.tls_info = issuer("old");
    nodes[1].internal.must_renew = true;
    let store = store_of(&rotating(), &nodes);
    let step = advance(&store, None, after(DAY));
    assert_eq!((step.is_finished, step.done, step.nodes), (false, 2, 3));
    nodes.remove(1);
    let step = advance(&store_of(&rotating(), &nodes), None, after(DAY));
    assert!(step.is_finished && step.wake_at.is_none());
}

#[test]
fn nobody_is_asked_when_nothing_changed() {
    // An authority outside signs with one below its root; a swarm that never changed its root asks nobody either.
    for cluster in [swarm(), swarm_outside()] {
        let step = advance(&store_of(&cluster, &crowd(3, "intermediate")), None, after(DAY));
        assert_eq!((step.writes.len(), step.is_finished, step.wake_at), (0, false, None));
    }
    assert_eq!(advance(&Store::new(), None, NOW), Advance::default());
}

/// What happens to a node of a random history.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Asked nodes get their certificates; the nth of them at once, with or without saying so.
    Renew { nth: usize, says: bool },
    /// The nth node says what it has.
    Report { nth: usize },
    /// Somebody joins.
    Join,
    /// The nth node is removed.
    Remove { nth: usize },
    /// Another leader, that knows of no batch.
    NewLeader,
    /// Time goes by.
    Wait { seconds: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..99_usize, any::<bool>()).prop_map(|(nth, says)| Event::Renew { nth, says }),
        2 => (0..99_usize).prop_map(|nth| Event::Report { nth }),
        1 => Just(Event::Join),
        1 => (0..99_usize).prop_map(|nth| Event::Remove { nth }),
        1 => Just(Event::NewLeader),
        4 => (0..10_i64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// A swarm over time: what managers store, and the issuer of each node's certificate, which only the node knows.
struct World {
    store: Store,
    index: u64,
    now: Timestamp,
    last_batch: Option<Timestamp>,
    held: std::collections::BTreeMap<NodeId, String>,
    joined: usize,
}

impl World {
    fn write(&mut self, writes: &[Write]) {
        self.index += 1;
        self.store.apply(self.index, self.now, writes).expect("one writer");
    }

    fn nth(&self, nth: usize) -> Option<Node> {
        let count = self.store.nodes().count();
        self.store.nodes().nth(nth % count.max(1)).map(|node| Node::clone(node))
    }

    fn renew(&mut self, mut node: Node, says: bool) {
        self.held.insert(node.id.clone(), "new".into());
        if says {
            node.description.tls_info = issuer("new");
        }
        let until = self.now + Nanos::from_secs(90 * DAY);
        self.write(&[Write::update(certified(&node, "chain".into(), NodeRole::Worker, self.now, until))]);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Renew { nth, says } => {
                let asked: Vec<_> =
                    self.store.nodes().filter(|node| node.internal.must_renew).cloned().collect();
                if let Some(node) = asked.get(nth % asked.len().max(1)) {
                    self.renew(Node::clone(node), says);
                }
            }
            Event::Report { nth } => {
                if let Some(mut node) = self.nth(nth) {
                    node.description.tls_info = issuer(&self.held[&node.id]);
                    self.write(&[Write::update(node)]);
                }
            }
            Event::Join => {
                self.joined += 1;
                let mut node = Node { id: format!("j{}", self.joined).into(), ..Node::default() };
                node.internal.certified_at = self.now;
                self.held.insert(node.id.clone(), "new".into());
                self.write(&[Write::Create(node.into())]);
            }
            Event::Remove { nth } => {
                if let Some(node) = self.nth(nth) {
                    self.write(&[Write::remove(node)]);
                }
            }
            Event::NewLeader => self.last_batch = None,
            Event::Wait { seconds } => self.now = self.now + Nanos::from_secs(seconds),
        }
    }

    /// One look of the leader; whether the rotation is done.
    fn lead(&mut self) -> bool {
        let step = advance(&self.store, self.last_batch, self.now);
        assert!(step.writes.len() <= BATCH);
        if !step.writes.is_empty() {
            self.last_batch = Some(self.now);
            self.write(&step.writes);
        }
        if step.is_finished {
            let all_new = self.store.nodes().all(|node| self.held[&node.id] == "new");
            assert!(all_new, "a node would be left behind");
        } else {
            assert!(step.wake_at.is_some(), "nobody would look again");
        }
        step.is_finished
    }
}

proptest! {
    #[test]
    fn a_rotation_ends_when_and_only_when_every_node_has_a_new_certificate(
        count in 0..80_usize,
        events in prop::collection::vec(event(), 0..120),
    ) {
        let nodes = crowd(count, "old");
        let held = nodes.iter().map(|node| (node.id.clone(), "old".to_owned())).collect();
        let store = store_of(&rotating(), &nodes);
        let mut world = World { store, index: 1, now: NOW, last_batch: None, held, joined: 0 };
        let mut is_finished = world.lead();
        for event in events {
            if is_finished {
                return Ok(());
            }
            world.happen(event);
            is_finished = world.lead();
        }
        // Without further trouble it ends: every node does what it is asked and says so.
        for _ in 0..40 {
            if is_finished {
                return Ok(());
            }
            world.happen(Event::Wait { seconds: 3 });
            let asked: Vec<_> =
                world.store.nodes().filter(|node| node.internal.must_renew).cloned().collect();
            for node in asked {
                world.renew(Node::clone(&node), true);
            }
            is_finished = world.lead();
        }
        prop_assert!(is_finished, "it hangs");
    }
}

#[test]
fn a_rotation_of_an_outside_root_needs_its_authority_to_answer() {
    let mut cluster = swarm();
    cluster.internal.root_rotation =
        Some(RootRotation { ca_certificate: "next".into(), ..RootRotation::default() });
    let found = plan(&cluster, &CaConfig::default(), None, NOW).expect("nothing is wrong");
    assert_eq!(found.must_answer, Some((ExternalRoot::Next, "next".into())));
}
