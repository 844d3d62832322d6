//! Reads in a simulated world: the leader asks nobody while it has a lease, and nobody ever reads anything old.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use world::{Cluster, Sim, each_seed, ms};

#[test]
fn a_leader_reads_without_asking_anybody() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let leader = cluster.wait_leader();
        world.pass(ms(500));
        for _ in 0..100 {
            world.pass(ms(7));
            assert!(cluster.at(leader).may_read(), "its lease does not end between two heartbeats");
            let others = cluster.up().into_iter().filter(|id| *id != leader);
            assert!(others.into_iter().all(|id| !cluster.at(id).may_read()));
        }
        let (log, began) = (cluster.at(leader), world.time());
        world.run_on(leader, async move { log.read_barrier().await }).unwrap();
        assert_eq!(world.time(), began);
    });
}

/// Writes wherever `old` does not lead, and reads at `old`, for two seconds: it reads what was acknowledged, or nothing.
/// Gives when the first write was acknowledged.
fn reads_nothing_old(world: &Arc<Sim>, cluster: &Cluster, old: u64, prefix: &str) -> Option<Duration> {
    let began = world.time();
    let mut first = None;
    let mut acknowledged: Vec<String> = Vec::new();
    while world.time() - began < ms(2000) {
        for leader in cluster.leaders().into_iter().filter(|id| *id != old) {
            let name = format!("{prefix}{}", acknowledged.len());
            if cluster.try_write(leader, &name).is_ok() {
                first = first.or(Some(world.time() - began));
                acknowledged.push(name);
            }
        }
        if cluster.at(old).may_read() {
            let lacking = acknowledged.iter().find(|name| !cluster.has(old, name));
            assert_eq!(lacking, None, "read {:?} after the begin", world.time() - began);
        }
        world.pass(ms(3));
    }
    first
}

#[test]
fn a_leader_that_only_seems_to_be_gone_reads_nothing_old() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let old = cluster.wait_leader();
        for round in 0..3 {
            let old = if round == 0 { old } else { cluster.wait_leader() };
            world.pass(ms(500 + round * 30));
            cluster.refuse(old);
            let replaced = reads_nothing_old(world, &cluster, old, &format!("r{round}-"));
            assert!(replaced.is_some_and(|after| after < ms(1200)), "{replaced:?}");
            cluster.heal();
            cluster.converge(&[]);
        }
    });
}

#[test]
fn a_leader_that_hands_over_reads_nothing_old() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let old = cluster.wait_leader();
        world.pass(ms(500));
        let next = cluster.up().into_iter().find(|id| *id != old).unwrap();
        // It is heard, but does not hear that another one leads.
        for other in cluster.up() {
            cluster.cut(other, old);
        }
        let log = cluster.at(old);
        world.spawn_on(old, Box::pin(async move { drop(log.transfer(Some(next)).await) }));
        let replaced = reads_nothing_old(world, &cluster, old, "s");
        assert!(replaced.is_some_and(|after| after < ms(200)), "{replaced:?}");
    });
}

#[test]
fn a_voter_that_was_restarted_keeps_what_it_promised() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        for round in 0..20 {
            cluster.heal();
            cluster.converge(&[]);
            let old = cluster.wait_leader();
            let mut others = cluster.up().into_iter().filter(|id| *id != old);
            let (voter, candidate) = (others.next().unwrap(), others.next().unwrap());
            // One wants to lead, and only lacks the other's vote.
            for (from, to) in [(old, candidate), (candidate, old)] {
                cluster.cut(from, to);
            }
            world.pass(ms(1500 + round * 17));
            assert_eq!(cluster.leaders(), [old]);
            cluster.kill(voter);
            for (from, to) in [(old, voter), (voter, old)] {
                cluster.cut(from, to);
            }
            cluster.restart(voter);
            let replaced = reads_nothing_old(world, &cluster, old, &format!("r{round}-"));
            assert!(replaced.is_some(), "nobody was elected");
        }
    });
}
