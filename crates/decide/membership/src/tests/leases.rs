//! The failure detector: tables of what is heard and what follows, and properties of any history.

use std::collections::BTreeSet;

use objects::{Nanos, Node, NodeId, NodeState, Timestamp};
use proptest::prelude::*;
use store::{Store, Write};

use crate::{LeaseTimes, Leases, Moment};

const HOUR: Nanos = Nanos::from_secs(3600);
/// Steps of the tests' clock. chosen: what a loaded manager is late by.
const TICK_MS: i64 = 10;
const WALL: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A leader that hears nodes, and writes what it judges.
struct Leader {
    store: Store,
    leases: Leases,
    now_ms: i64,
    silent: BTreeSet<NodeId>,
    /// `12.3 a down +0.4`: when, who, what, and with DOWN how long its tasks stay.
    log: Vec<String>,
}

impl Leader {
    fn of(count: usize) -> Self {
        let nodes = (0..count).map(|number| {
            let mut node = Node { id: name(number), ..Node::default() };
            node.status.state = NodeState::Ready;
            Write::Create(node.into())
        });
        let mut store = Store::new();
        store.apply(1, WALL, &nodes.collect::<Vec<_>>()).unwrap();
        let mut leader = Self {
            store,
            leases: Leases::new(LeaseTimes::default()),
            now_ms: 0,
            silent: BTreeSet::new(),
            log: Vec::new(),
        };
        leader.leases.lead(&leader.store, Moment(0));
        for number in 0..count {
            leader.leases.opened(&name(number), "s1", Moment(0));
        }
        leader
    }

    fn now(&self) -> Moment {
        Moment(0) + Nanos::from_millis(self.now_ms)
    }

    fn wall(&self) -> Timestamp {
        WALL + Nanos::from_millis(self.now_ms)
    }

    fn run_to(&mut self, until_ms: i64) -> &mut Self {
        while self.now_ms < until_ms {
            self.now_ms += TICK_MS;
            if self.now_ms % 500 == 0 {
                self.hear();
            }
            self.judge();
        }
        self
    }

    fn hear(&mut self) {
        let now = self.now();
        let speaking: Vec<_> =
            self.store.nodes().map(|node| node.id.clone()).filter(|id| !self.silent.contains(id)).collect();
        speaking.iter().for_each(|id| self.leases.proof(id, now));
    }

    fn judge(&mut self) {
        if self.leases.wake_at().is_none_or(|at| at > self.now()) {
            return;
        }
        for judgement in self.leases.judge(&self.store, self.now(), self.wall()) {
            let wall = self.wall();
            let Some(write) = judgement.write(&self.store, wall) else { continue };
            let span = judgement.tasks_move_at.since(wall).0 / 1_000_000;
            let stays = if judgement.state == NodeState::Down {
                format!(" +{}.{}", span / 1000, span % 1000 / 100)
            } else {
                String::new()
            };
            let (s, tenth) = (self.now_ms / 1000, self.now_ms % 1000 / 100);
            self.log.push(format!("{s}.{tenth} {} {}{stays}", judgement.node, judgement.state.as_str()));
            self.write(&[write]);
        }
    }

    fn write(&mut self, writes: &[Write]) {
        let wall = self.wall();
        self.store.apply(self.store.applied() + 1, wall, writes).unwrap();
    }

    /// Ten seconds on a clock that was set back.
    fn run_an_hour_early(&mut self) {
        for _ in 0..1000 {
            self.now_ms += TICK_MS;
            let wall = self.wall() - HOUR;
            for judgement in self.leases.judge(&self.store, self.now(), wall) {
                self.write(&judgement.write(&self.store, wall).into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// What a manager does when a session opens.
    fn open(&mut self, number: usize, session: &str) {
        self.leases.opened(&name(number), session, self.now());
        let mut node = Node::clone(self.store.node(&name(number)).unwrap());
        node.status.state = NodeState::Ready;
        self.write(&[Write::update(node)]);
    }

    fn silence(&mut self, numbers: impl IntoIterator<Item = usize>) -> &mut Self {
        self.silent.extend(numbers.into_iter().map(name));
        self
    }

    fn state(&self, number: usize) -> NodeState {
        self.store.node(&name(number)).unwrap().status.state
    }

    fn expect(&self, log: &[&str]) {
        assert_eq!(self.log, log);
    }
}

fn name(number: usize) -> NodeId {
    format!("n{number:02}").as_str().into()
}

#[test]
fn a_node_whose_session_closed_is_down_after_1_8_s_and_its_tasks_move_at_2_2_s() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([1]);
    leader.leases.closed(&name(1), Some("s1"), leader.now());
    leader.run_to(11_790).expect(&[]);
    leader.run_to(30_000).expect(&["11.8 n01 down +0.4"]);
    let node = leader.store.node(&name(1)).unwrap();
    assert_eq!(node.status.message, "heartbeat failure");
    assert_eq!(node.internal.tasks_move_at, WALL + Nanos::from_millis(12_200));
    assert!(!node.must_be_left(WALL + Nanos::from_millis(12_199)));
    assert!(node.must_be_left(WALL + Nanos::from_millis(12_200)));
}

#[test]
fn a_node_that_is_back_in_time_is_never_down() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([1]);
    leader.leases.closed(&name(1), Some("s1"), leader.now());
    leader.run_to(11_700).silent.clear();
    leader.open(1, "s2");
    // The old session's end may be told late.
    leader.leases.closed(&name(1), Some("s1"), leader.now());
    leader.run_to(60_000).expect(&[]);
}

#[test]
fn a_node_that_is_back_before_its_tasks_move_keeps_them() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([1]);
    leader.leases.closed(&name(1), Some("s1"), leader.now());
    leader.run_to(12_000).silent.clear();
    leader.open(1, "s2");
    leader.run_to(60_000).expect(&["11.8 n01 down +0.4"]);
    assert!(!leader.store.node(&name(1)).unwrap().must_be_left(leader.wall()));
}

#[test]
fn silence_counts_beyond_3_5_s() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([2]);
    leader.run_to(13_000).silent.clear();
    leader.run_to(20_000).expect(&[]);
    leader.silence([2]).run_to(30_000).expect(&["23.5 n02 down +0.4"]);
    // Its session was never closed: the first proof of life brings it back.
    leader.silent.clear();
    leader.run_to(40_000).expect(&["23.5 n02 down +0.4", "30.5 n02 ready"]);
}

#[test]
fn a_node_that_is_heard_without_a_session_is_disconnected_not_down() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).leases.closed(&name(0), Some("s1"), Moment(10_000_000_000));
    leader.run_to(60_000).expect(&["15.0 n00 disconnected"]);
    leader.open(0, "s2");
    leader.run_to(90_000).expect(&["15.0 n00 disconnected"]);
    assert_eq!(leader.state(0), NodeState::Ready);
}

#[test]
fn an_announced_hold_is_no_silence_until_it_ends() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([1]);
    leader.leases.hold(&name(1), Nanos::from_secs(30), leader.now());
    leader.leases.closed(&name(1), Some("s1"), leader.now());
    leader.run_to(50_000).expect(&["15.0 n01 disconnected", "40.0 n01 down +0.4"]);
    let mut leader = Leader::of(3);
    leader.run_to(10_000).silence([1]);
    leader.leases.hold(&name(1), Nanos::from_secs(86_400), leader.now());
    leader.run_to(80_000).expect(&["70.0 n01 down +0.4"]);
}

#[test]
fn a_hold_ends_when_the_node_is_back() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000);
    leader.leases.hold(&name(1), Nanos::from_secs(30), leader.now());
    leader.run_to(11_000);
    leader.open(1, "s2");
    leader.silence([1]).run_to(20_000).expect(&["14.5 n01 down +0.4"]);
}

#[test]
fn a_node_that_left_is_down_at_once_whatever_is_still_on_its_way() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000);
    leader.leases.left(&name(1), leader.now());
    leader.leases.proof(&name(1), leader.now());
    leader.run_to(10_010).expect(&["10.0 n01 down +0.0"]);
    leader.run_to(12_000).silence([1]).run_to(20_000).expect(&["10.0 n01 down +0.0"]);
    assert_eq!(leader.store.node(&name(1)).unwrap().status.message, "node left the swarm");
}

#[test]
fn a_new_leader_flaps_nothing() {
    let mut leader = Leader::of(4);
    leader.run_to(10_000).silence([3]).run_to(20_000);
    leader.expect(&["13.5 n03 down +0.4"]);
    // The new leader was a manager that started just now: it has never heard of anybody.
    leader.leases = Leases::new(LeaseTimes::default());
    leader.leases.lead(&leader.store, leader.now());
    leader.silence([2]).run_to(60_000);
    leader.expect(&["13.5 n03 down +0.4", "21.8 n02 unknown", "27.0 n02 down +0.4"]);
    let message = &leader.store.node(&name(2)).unwrap().status.message;
    assert_eq!(message, "heartbeat failure for node in \"unknown\" state");
}

#[test]
fn what_a_follower_heard_counts_when_it_leads() {
    let mut leader = Leader::of(4);
    leader.run_to(10_000).silence([0]).run_to(11_000);
    // The old leader was on n00. Nobody is judged in the first 1.8 s: others may have heard more.
    leader.leases.closed(&name(0), None, leader.now());
    leader.leases.lead(&leader.store, leader.now());
    leader.run_to(12_790).expect(&[]);
    leader.run_to(30_000).expect(&["12.8 n00 down +0.4"]);
}

#[test]
fn an_unknown_node_is_ready_at_its_first_proof_of_life() {
    let mut leader = Leader::of(2);
    leader.leases = Leases::new(LeaseTimes::default());
    leader.leases.lead(&leader.store, leader.now());
    leader.silence([1]).run_to(3_000).expect(&["1.8 n01 unknown"]);
    leader.silent.clear();
    leader.run_to(30_000).expect(&["1.8 n01 unknown", "3.5 n01 ready"]);
}

#[test]
fn a_stalled_manager_gives_every_node_a_fresh_lease() {
    let mut leader = Leader::of(3);
    leader.run_to(10_000);
    // Stopped for five seconds; when it goes on it judges before it reads what arrived.
    leader.now_ms = 15_000;
    leader.judge();
    leader.run_to(40_000).expect(&[]);
    // A node that died meanwhile is found out a lease later.
    leader.now_ms = 60_000;
    leader.silence([2]).run_to(90_000).expect(&["63.5 n02 down +0.4"]);
}

#[test]
fn the_loss_of_half_of_many_nodes_moves_nothing_for_a_minute() {
    let mut leader = Leader::of(12);
    leader.run_to(10_000).silence(0..3).run_to(11_000).silence(3..6).run_to(20_000);
    let at_first: Vec<_> = (0..3).map(|number| format!("13.5 n{number:02} down +60.0")).collect();
    let then: Vec<_> = (3..6).map(|number| format!("14.5 n{number:02} down +60.0")).collect();
    assert_eq!(leader.log, [at_first, then].concat());
    // All but two are back after half a minute: these two are lost, and waited long enough.
    leader.log.clear();
    leader.run_to(40_000).silent = [name(0), name(1)].into();
    leader.run_to(50_000);
    let mut back: Vec<_> = leader.log.clone();
    back.sort();
    let expect = [
        "40.5 n00 down +0.0",
        "40.5 n01 down +0.0",
        "40.5 n02 ready",
        "40.5 n03 ready",
        "40.5 n04 ready",
        "40.5 n05 ready",
    ];
    assert_eq!(back, expect);
}

#[test]
fn a_few_of_many_nodes_move_at_once() {
    let mut leader = Leader::of(12);
    leader.run_to(10_000).silence(0..5).run_to(20_000);
    assert!(leader.log.iter().all(|line| line.ends_with("down +0.4")), "{:?}", leader.log);
    // The same number again, long after: of the seven that were left.
    leader.log.clear();
    leader.silence(5..10).run_to(30_000);
    assert!(leader.log.iter().all(|line| line.ends_with("down +0.4")), "{:?}", leader.log);
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_tasks() {
    let mut leader = Leader::of(2);
    leader.run_to(10_000).silence([1]).run_to(13_600).expect(&["13.5 n01 down +0.4"]);
    leader.run_an_hour_early();
    assert!(leader.store.node(&name(1)).unwrap().must_be_left(leader.wall() - HOUR));
}

#[test]
fn a_leader_whose_clock_is_right_does_not_keep_the_tasks_of_one_whose_clock_was_ahead() {
    let mut leader = Leader::of(2);
    leader.run_to(10_000).silence([1]).run_to(13_600).expect(&["13.5 n01 down +0.4"]);
    leader.leases = Leases::new(LeaseTimes::default());
    leader.leases.lead(&leader.store, leader.now());
    leader.run_an_hour_early();
    assert!(leader.store.node(&name(1)).unwrap().must_be_left(leader.wall() - HOUR));
}

#[test]
fn spans_scale_with_the_heartbeat_period() {
    let check = |period_ms, pulse_ms, suspicion_ms, silence_ms| {
        let times = LeaseTimes::of(Nanos::from_millis(period_ms));
        let of = |ms| Nanos::from_millis(ms);
        assert_eq!(
            (times.pulse, times.suspicion, times.silence),
            (of(pulse_ms), of(suspicion_ms), of(silence_ms))
        );
    };
    check(0, 500, 1800, 3500);
    check(5000, 500, 1800, 3500);
    check(1000, 100, 360, 700);
    check(10_000, 1000, 3600, 7000);
    check(1, 50, 180, 350);
    assert!(LeaseTimes::of(Nanos(i64::MAX)).silence > Nanos::from_secs(3600));
}

/// One thing that happens to the swarm of a random history, and how long it lasts in units of 100 ms.
#[derive(Debug, Clone)]
enum Event {
    /// Proofs of a node get lost for less than a lease.
    Loss(usize, i64),
    /// The manager does not run.
    Stall(i64),
    /// Another manager leads, which has heard nothing, or all.
    NewLeader(bool),
    /// The session breaks, and another one opens.
    Reconnect(usize, i64),
    /// The node's daemon restarts with a hold.
    Restart(usize, i64),
    Peace(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = 0..12_usize;
    let event = prop_oneof![
        (node.clone(), 1..29_i64).prop_map(|(node, span)| Event::Loss(node, span)),
        (5..600_i64).prop_map(Event::Stall),
        any::<bool>().prop_map(Event::NewLeader),
        (node.clone(), 1..17_i64).prop_map(|(node, span)| Event::Reconnect(node, span)),
        (node, 1..290_i64).prop_map(|(node, span)| Event::Restart(node, span)),
        (1..100_i64).prop_map(Event::Peace),
    ];
    prop::collection::vec(event, 1..12)
}

impl Leader {
    fn happen(&mut self, event: &Event, number: usize) {
        let until = |leader: &Self, span: i64| leader.now_ms + span * 100;
        let session = format!("s{number}");
        match *event {
            Event::Loss(node, span) => {
                let end = until(self, span);
                self.silence([node]).run_to(end).silent.clear();
                self.run_to(self.now_ms + 600);
            }
            Event::Stall(span) => {
                self.now_ms = until(self, span);
                self.judge();
                self.run_to(self.now_ms + 600);
            }
            Event::NewLeader(has_heard) => {
                if !has_heard {
                    self.leases = Leases::new(LeaseTimes::default());
                }
                self.leases.lead(&self.store, self.now());
            }
            Event::Reconnect(node, span) => {
                let end = until(self, span);
                self.leases.closed(&name(node), None, self.now());
                self.silence([node]).run_to(end).silent.clear();
                self.open(node, &session);
            }
            Event::Restart(node, span) => {
                let end = until(self, span);
                self.leases.hold(&name(node), Nanos::from_secs(30), self.now());
                self.leases.closed(&name(node), None, self.now());
                self.silence([node]).run_to(end).silent.clear();
                self.open(node, &session);
            }
            Event::Peace(span) => drop(self.run_to(until(self, span)).silent.is_empty()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens to managers and links: a node whose daemon lives and is cut off for less than a lease keeps its
    /// tasks.
    #[test]
    fn no_living_node_is_ever_down(events in events(), count in 1..12_usize) {
        let mut leader = Leader::of(count);
        leader.run_to(3000);
        for (number, event) in events.iter().enumerate() {
            let is_of_a_node = match event {
                Event::Loss(node, _) | Event::Reconnect(node, _) | Event::Restart(node, _) => *node < count,
                _ => true,
            };
            if is_of_a_node {
                leader.happen(event, number + 2);
            }
        }
        leader.run_to(leader.now_ms + 8000);
        prop_assert!(!leader.log.iter().any(|line| line.contains("down")), "{:?}", leader.log);
        for node in leader.store.nodes() {
            prop_assert_eq!(node.status.state, NodeState::Ready, "{:?}", leader.log);
        }
    }

    /// A node that dies is down soon, and once, whatever else happens.
    #[test]
    fn a_dead_node_is_found_out(events in events()) {
        let mut leader = Leader::of(4);
        leader.run_to(3000);
        let dead = name(3);
        leader.silent.insert(dead.clone());
        for (number, event) in events.iter().enumerate() {
            if !matches!(event, Event::Loss(..) | Event::Reconnect(..) | Event::Restart(..)) {
                leader.happen(event, number + 2);
                leader.silent.insert(dead.clone());
            }
        }
        leader.run_to(leader.now_ms + 7500);
        let downs = leader.log.iter().filter(|line| line.contains("n03 down")).count();
        prop_assert_eq!(downs, 1, "{:?}", leader.log);
        prop_assert_eq!(leader.log.iter().filter(|line| line.contains("down")).count(), 1);
    }
}
