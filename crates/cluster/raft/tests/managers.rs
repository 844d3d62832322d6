//! Several managers in a simulated world: what was acknowledged stays, somebody leads again in time, nobody leads beside
//! the leader.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::time::Duration;

use raft::{Member, MemberError, ProposeError, Start, TransferError};
use world::net::{NOW, address, create};
use world::{Cluster, Sim, SimDisk, each_seed, ms};

/// Writes `count` services and gives their names.
fn write_some(cluster: &Cluster, prefix: &str, count: u64) -> Vec<String> {
    (0..count)
        .map(|number| {
            let name = format!("{prefix}{number}");
            cluster.write(&name);
            name
        })
        .collect()
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back_as_a_follower() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 20);
        cluster.converge(&acknowledged);
        let leader = cluster.wait_leader();
        cluster.kill(leader);
        let took = cluster.write("after");
        acknowledged.push("after".into());
        assert!(took < ms(400), "{took:?}");
        cluster.restart(leader);
        let began = world.time();
        cluster.converge(&acknowledged);
        assert!(world.time() - began < ms(1000), "{:?}", world.time() - began);
    });
}

#[test]
fn a_lone_manager_leads_when_it_is_open_and_waits_for_nobody() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 1);
        let acknowledged = write_some(&cluster, "s", 20);
        cluster.kill(1);
        let began = world.time();
        cluster.restart(1);
        assert!(cluster.at(1).leadership().is_leader());
        assert!(acknowledged.iter().all(|name| cluster.has(1, name)));
        assert!(world.time() - began < ms(50), "{:?}", world.time() - began);
    });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_refuses_writes() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 5);
        cluster.converge(&acknowledged);
        let old = cluster.wait_leader();
        cluster.isolate(old);
        let began = world.time();
        assert!(matches!(cluster.try_write(old, "lost"), Err(ProposeError::Unknown)));
        assert!(world.time() - began < ms(800), "{:?}", world.time() - began);
        assert!(matches!(cluster.try_write(old, "refused"), Err(ProposeError::NotLeader)));
        assert!(!cluster.at(old).leadership().is_leader());
        let barrier = cluster.at(old);
        assert!(world.run(async move { barrier.read_barrier().await }).is_err());
        cluster.write("after");
        acknowledged.push("after".into());
        let took = world.time() - began;
        assert!(took < ms(2500), "{took:?}");
        cluster.heal();
        cluster.converge(&acknowledged);
        for id in cluster.up() {
            assert!(!cluster.has(id, "lost") && !cluster.has(id, "refused"));
        }
    });
}

#[test]
fn a_silent_leader_is_replaced_within_the_election_timeouts() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let old = cluster.wait_leader();
        cluster.isolate(old);
        let began = world.time();
        cluster.write("after");
        let took = world.time() - began;
        assert!(took > ms(500) && took < ms(1500), "{took:?}");
    });
}

#[test]
fn a_leader_that_is_heard_but_hears_nothing_is_replaced() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let old = cluster.wait_leader();
        for other in cluster.up() {
            cluster.cut(other, old);
        }
        let began = world.time();
        let others: Vec<u64> = cluster.up().into_iter().filter(|id| *id != old).collect();
        while !cluster.leaders().iter().any(|leader| others.contains(leader)) {
            assert!(world.time() - began < Duration::from_secs(6), "{:#?}", cluster.views());
            world.pass(ms(10));
        }
        cluster.heal();
        cluster.converge(&acknowledged);
    });
}

#[test]
fn a_leader_that_hears_but_is_not_heard_is_replaced_and_a_follower_like_that_disturbs_nobody() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let leader = cluster.wait_leader();
        let follower = cluster.up().into_iter().find(|id| *id != leader).unwrap();
        for other in cluster.up() {
            cluster.cut(other, follower);
        }
        let term = cluster.at(leader).leadership().term();
        world.pass(Duration::from_secs(20));
        cluster.heal();
        world.pass(Duration::from_secs(3));
        assert_eq!(cluster.wait_leader(), leader);
        assert_eq!(cluster.at(leader).leadership().term(), term, "no election was needed");
        for other in cluster.up() {
            cluster.cut(leader, other);
        }
        world.pass(Duration::from_secs(3));
        assert_ne!(cluster.wait_leader(), leader);
    });
}

#[test]
fn a_stalled_leader_steps_down_before_it_does_anything_and_starts_no_election() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        for stall in [5, 60] {
            let old = cluster.wait_leader();
            world.pause(old, true);
            world.pass(Duration::from_secs(stall));
            let others: Vec<u64> = cluster.up().into_iter().filter(|id| *id != old).collect();
            let leaders = cluster.leaders();
            assert_eq!(leaders.len(), 1, "the stalled one is none: {leaders:?}");
            assert!(others.contains(&leaders[0]));
            let term = cluster.at(leaders[0]).leadership().term();
            let name = format!("during{stall}");
            cluster.write(&name);
            acknowledged.push(name.clone());
            world.pause(old, false);
            assert!(!cluster.at(old).leadership().is_leader());
            assert!(cluster.try_write(old, "stale").is_err());
            world.pass(Duration::from_secs(5));
            assert_eq!(cluster.at(old).leadership().term(), term, "no election after the stall");
            cluster.converge(&acknowledged);
        }
    });
}

#[test]
fn a_stalled_follower_starts_no_election() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let leader = cluster.wait_leader();
        let term = cluster.at(leader).leadership().term();
        for follower in cluster.up().into_iter().filter(|id| *id != leader) {
            world.pause(follower, true);
            world.pass(Duration::from_secs(60));
            world.pause(follower, false);
            world.pass(Duration::from_secs(3));
        }
        assert_eq!(cluster.wait_leader(), leader);
        assert_eq!(cluster.at(leader).leadership().term(), term);
    });
}

#[test]
fn twenty_leaders_are_killed_in_a_row() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let mut worst = Duration::ZERO;
        for kill in 0..20 {
            let leader = cluster.wait_leader();
            cluster.kill(leader);
            let name = format!("kill{kill}");
            worst = worst.max(cluster.write(&name));
            acknowledged.push(name);
            cluster.restart(leader);
        }
        assert!(worst < ms(2500), "{worst:?}");
        cluster.converge(&acknowledged);
    });
}

#[test]
fn a_new_leader_reads_everything_that_was_acknowledged() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = Vec::new();
        for kill in 0..8 {
            let leader = cluster.wait_leader();
            acknowledged.extend(write_some(&cluster, &format!("kill{kill}-"), 3));
            cluster.kill(leader);
            // The first one that a barrier lets through.
            let reader = loop {
                world.pass(ms(5));
                let barriers = cluster.up().into_iter().find(|id| {
                    let log = cluster.at(*id);
                    world.run_on(*id, async move { log.read_barrier().await }).is_ok()
                });
                if let Some(id) = barriers {
                    break id;
                }
            };
            for name in &acknowledged {
                assert!(cluster.has(reader, name), "{name} is not there after leader {kill} was killed");
            }
            cluster.restart(leader);
        }
    });
}

#[test]
fn many_proposals_share_an_fsync() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let leader = cluster.wait_leader();
        for disk in cluster.disks.values() {
            disk.set_delay(ms(10));
        }
        let syncs = |cluster: &Cluster| cluster.disks.values().map(SimDisk::syncs).max().unwrap();
        let (began, before, log) = (world.time(), syncs(&cluster), cluster.at(leader));
        world.run_on(leader, async move {
            let propose = |number: u64| {
                let log = log.clone();
                async move { log.propose(NOW, create(&format!("s{number}"))).await.unwrap() }
            };
            futures_util::future::join_all((0..500).map(propose)).await
        });
        let (took, syncs) = (world.time() - began, syncs(&cluster) - before);
        assert!(took < ms(500), "{took:?}");
        assert!(syncs < 50, "{syncs}");
    });
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_all_goes_on_when_one_returns() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let leader = cluster.wait_leader();
        let others: Vec<u64> = cluster.up().into_iter().filter(|id| *id != leader).collect();
        for id in &others {
            cluster.kill(*id);
        }
        let began = world.time();
        assert!(cluster.try_write(leader, "refused").is_err());
        assert!(world.time() - began < ms(2000));
        world.pass(Duration::from_secs(10));
        assert!(cluster.leaders().is_empty());
        cluster.restart(others[0]);
        let began = world.time();
        cluster.write("after");
        acknowledged.push("after".into());
        let took = world.time() - began;
        assert!(took < ms(2000), "{took:?}");
        cluster.restart(others[1]);
        cluster.converge(&acknowledged);
    });
}

#[test]
fn leadership_is_handed_over_on_request_and_on_stop() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let old = cluster.wait_leader();
        let to = cluster.up().into_iter().find(|id| *id != old).unwrap();
        let log = cluster.at(old);
        let began = world.time();
        world.run_on(old, async move { log.transfer(Some(to)).await }).unwrap();
        assert_eq!(cluster.wait_leader(), to);
        assert!(world.time() - began < ms(200), "{:?}", world.time() - began);
        let log = cluster.at(old);
        let refused = world.run_on(old, async move { log.transfer(None).await });
        assert!(matches!(refused, Err(TransferError::NotLeader)));
        let began = world.time();
        let log = cluster.at(to);
        world.run_on(to, async move { log.stop().await });
        cluster.write("after");
        assert!(world.time() - began < ms(300), "{:?}", world.time() - began);
    });
}

#[test]
fn the_only_reachable_successor_is_never_one_that_is_gone() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let leader = cluster.wait_leader();
        let gone = cluster.up().into_iter().find(|id| *id != leader).unwrap();
        cluster.isolate(gone);
        world.pass(Duration::from_secs(3));
        let view = cluster.at(leader).members().borrow().clone();
        assert!(!view.members[&gone].is_reachable, "{view:?}");
        let log = cluster.at(leader);
        let refused = world.run_on(leader, async move { log.transfer(Some(gone)).await });
        assert!(matches!(refused, Err(TransferError::NoTarget)));
        assert_eq!(cluster.wait_leader(), leader);
    });
}

#[test]
fn a_leader_with_a_slow_disk_hands_over_and_a_slow_follower_costs_nothing() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        let slow = cluster.wait_leader();
        cluster.disks[&slow].set_delay(ms(500));
        let began = world.time();
        let mut number = 0;
        while cluster.leaders() == [slow] || cluster.leaders().is_empty() {
            number += 1;
            cluster.write(&format!("slow{number}"));
            assert!(world.time() - began < Duration::from_secs(10), "it leads on");
        }
        let leader = cluster.wait_leader();
        let term = cluster.at(leader).leadership().term();
        for number in 0..50 {
            let took = cluster.write(&format!("fast{number}"));
            assert!(took < ms(50), "{took:?}");
        }
        world.pass(Duration::from_secs(60));
        assert_eq!(cluster.at(leader).leadership().term(), term, "leadership stays");
    });
}

#[test]
fn a_manager_with_a_full_disk_steps_aside_and_heals_without_repair() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let full = cluster.wait_leader();
        cluster.disks[&full].set_full(true);
        let began = world.time();
        for number in 0..5 {
            let name = format!("full{number}");
            cluster.write(&name);
            acknowledged.push(name);
        }
        assert!(world.time() - began < ms(800), "{:?}", world.time() - began);
        assert_ne!(cluster.wait_leader(), full);
        cluster.kill(full);
        cluster.disks[&full].set_full(false);
        cluster.restart(full);
        cluster.converge(&acknowledged);
    });
}

#[test]
fn a_forced_new_cluster_keeps_everything_and_refuses_who_comes_back() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 10);
        cluster.converge(&acknowledged);
        let epoch = cluster.at(1).epoch();
        for id in 1..=3 {
            cluster.kill(id);
        }
        cluster.open(2, Start::ForceNewCluster).unwrap();
        assert!(cluster.at(2).leadership().is_leader());
        assert_ne!(cluster.at(2).epoch(), epoch);
        assert_eq!(cluster.at(2).members().borrow().members.len(), 1);
        acknowledged.extend(write_some(&cluster, "new", 5));
        // The two others would be a quorum of the old swarm: they may find each other, but not the new one.
        cluster.restart(3);
        world.pass(Duration::from_secs(5));
        assert!(cluster.at(2).leadership().is_leader());
        assert!(!cluster.at(3).leadership().is_leader());
        assert!(!cluster.has(3, "new0"));
        cluster.restart(1);
        world.pass(Duration::from_secs(5));
        assert!(cluster.at(2).leadership().is_leader());
        assert_eq!(cluster.at(2).members().borrow().members.len(), 1);
        assert!(!cluster.has(3, "new0") && !cluster.has(1, "new0"));
        cluster.kill(1);
        cluster.kill(3);
        // It goes on after a restart, and grows again by managers with new numbers.
        cluster.kill(2);
        cluster.restart(2);
        cluster.join(4);
        cluster.join(5);
        cluster.converge(&acknowledged);
        assert_eq!(cluster.at(2).members().borrow().voters().count(), 3);
    });
}

#[test]
fn members_come_go_and_move_under_load() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 5);
        for id in 4..9 {
            cluster.join(id);
            acknowledged.extend(write_some(&cluster, &format!("join{id}-"), 3));
            let gone = id - 3;
            loop {
                let leader = cluster.wait_leader();
                let log = cluster.at(leader);
                match world.run_on(leader, async move { log.remove(gone).await }) {
                    Ok(()) => break,
                    Err(MemberError::NotLeader | MemberError::Busy | MemberError::Unsure) => {}
                    Err(error) => panic!("{error:?}"),
                }
                world.pass(ms(50));
            }
            cluster.kill(gone);
            acknowledged.extend(write_some(&cluster, &format!("gone{gone}-"), 3));
        }
        cluster.converge(&acknowledged);
        assert_eq!(cluster.up(), [6, 7, 8]);
        let view = cluster.at(cluster.wait_leader()).members().borrow().clone();
        assert_eq!(view.voters().collect::<Vec<_>>(), [6, 7, 8]);
        assert!(view.members.values().all(|member| member.is_reachable), "{view:?}");
    });
}

#[test]
fn one_that_was_removed_while_it_was_away_hears_of_no_leader() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        let acknowledged = write_some(&cluster, "s", 3);
        cluster.converge(&acknowledged);
        let leader = cluster.wait_leader();
        let away = cluster.up().into_iter().find(|id| *id != leader).unwrap();
        world.pass(ms(500));
        assert!(cluster.at(away).last_contact_with_leader().unwrap() < ms(500));
        assert_eq!(cluster.at(away).leader().unwrap().raft_id, leader);
        cluster.isolate(away);
        let log = cluster.at(leader);
        world.run_on(leader, async move { log.remove(away).await }).unwrap();
        cluster.heal();
        // It asks whether its leader lives and whether it may lead, and is answered; but it is not led.
        for _ in 0..20 {
            world.pass(ms(500));
            assert!(cluster.at(away).last_contact_with_leader().unwrap() > ms(400));
        }
        assert!(cluster.at(away).last_contact_with_leader().unwrap() > ms(10_000));
        assert!(cluster.at(away).leader().is_none());
        assert!(cluster.at(away).members().borrow().leader.is_none());
        // Taken in again, it is.
        let (log, member) = (cluster.at(leader), Member { raft_id: away, address: address(away) });
        world
            .run_on(leader, async move {
                log.add_learner(member).await.unwrap();
                log.promote(away).await
            })
            .unwrap();
        world.pass(ms(500));
        assert!(cluster.at(away).last_contact_with_leader().unwrap() < ms(500));
        cluster.converge(&acknowledged);
    });
}

#[test]
fn changes_of_members_that_make_no_sense_are_refused() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 1);
        let log = cluster.at(1);
        world.run_on(1, async move {
            assert!(matches!(log.remove(1).await, Err(MemberError::LastVoter)));
            assert!(matches!(log.promote(9).await, Err(MemberError::Unknown { raft_id: 9 })));
            assert!(matches!(log.set_address(9, "n9:1".into()).await, Err(MemberError::Unknown { .. })));
            log.remove(9).await.unwrap();
            log.add_learner(Member { raft_id: 2, address: address(2) }).await.unwrap();
            log.add_learner(Member { raft_id: 2, address: address(2) }).await.unwrap();
            let other = log.add_learner(Member { raft_id: 2, address: address(3) }).await;
            assert!(matches!(other, Err(MemberError::Exists { raft_id: 2 })));
            // Nobody answers there: it gets no vote, and the swarm goes on.
            assert!(matches!(log.promote(2).await, Err(MemberError::Behind { raft_id: 2, .. })));
            log.set_address(2, address(5)).await.unwrap();
            log.members().wait_for(|view| view.members[&2].address == address(5)).await.unwrap();
            log.remove(2).await.unwrap();
            assert!(matches!(log.transfer(None).await, Err(TransferError::NoTarget)));
        });
        cluster.write("after");
    });
}

#[test]
fn a_manager_that_was_away_for_long_gets_a_snapshot() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 3);
        let mut acknowledged = write_some(&cluster, "s", 5);
        cluster.converge(&acknowledged);
        let leader = cluster.wait_leader();
        let away = cluster.up().into_iter().find(|id| *id != leader).unwrap();
        cluster.kill(away);
        acknowledged.extend(write_some(&cluster, "t", 700));
        for id in cluster.up() {
            let log = cluster.at(id);
            world.run_on(id, async move { log.snapshot().await.unwrap() });
        }
        acknowledged.extend(write_some(&cluster, "u", 20));
        cluster.restart(away);
        cluster.converge(&acknowledged);
        // One that joins with nothing gets it too, and all of them open what they have afterwards.
        cluster.join(7);
        cluster.converge(&acknowledged);
        for id in cluster.up() {
            cluster.kill(id);
        }
        for id in [1, 2, 3, 7] {
            cluster.restart(id);
        }
        cluster.converge(&acknowledged);
    });
}

#[test]
fn a_lossy_slow_network_and_random_faults_lose_nothing() {
    each_seed(|world| {
        let mut cluster = Cluster::new(world, 5);
        let mut acknowledged = write_some(&cluster, "s", 5);
        cluster.set_latency(ms(20));
        let mut down: Vec<u64> = Vec::new();
        for round in 0..40 {
            let victim = 1 + world.below(5);
            match world.below(7) {
                0 if down.len() < 2 && !down.contains(&victim) => {
                    cluster.kill(victim);
                    down.push(victim);
                }
                1 => {
                    if let Some(id) = down.pop() {
                        cluster.restart(id);
                    }
                }
                2 => cluster.isolate(victim),
                3 => cluster.cut(victim, 1 + world.below(5)),
                4 => cluster.heal(),
                5 => cluster.set_loss(world.below(15)),
                _ => {
                    world.pause(victim, true);
                    world.pass(ms(world.below(3000)));
                    world.pause(victim, false);
                }
            }
            let leaders = cluster.leaders();
            assert!(leaders.len() <= 1, "two leaders: {leaders:?} {:#?}", cluster.views());
            for leader in leaders {
                let name = format!("round{round}");
                if cluster.try_write(leader, &name).is_ok() {
                    acknowledged.push(name);
                }
            }
            world.pass(ms(world.below(1500)));
        }
        cluster.heal();
        cluster.set_loss(0);
        for id in down {
            cluster.restart(id);
        }
        cluster.converge(&acknowledged);
    });
}

#[test]
fn managers_that_are_far_apart_keep_their_leader() {
    each_seed(|world| {
        let cluster = Cluster::new(world, 3);
        cluster.converge(&[]);
        // 300 to 450 ms there and back: twice what a heartbeat may take next door.
        cluster.set_latency(ms(150));
        world.pass(Duration::from_secs(30));
        let leader = cluster.wait_leader();
        let term = cluster.at(leader).leadership().term();
        for number in 0..20 {
            let took = cluster.write(&format!("far{number}"));
            assert!(took < ms(2000), "{took:?}");
            world.pass(Duration::from_secs(2));
        }
        assert_eq!(cluster.wait_leader(), leader);
        assert_eq!(cluster.at(leader).leadership().term(), term, "nobody stood for election");
        cluster.kill(leader);
        let took = cluster.write("after");
        assert!(took < Duration::from_secs(15), "{took:?}");
        // Near again, they are quick again.
        cluster.set_latency(ms(1));
        world.pass(Duration::from_secs(60));
        cluster.isolate(cluster.wait_leader());
        cluster.heal();
        let began = world.time();
        cluster.write("near");
        assert!(world.time() - began < ms(1500), "{:?}", world.time() - began);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        let (world, _simulation) = Sim::new(seed);
        let mut cluster = Cluster::new(&world, 3);
        let acknowledged = write_some(&cluster, "s", 5);
        let leader = cluster.wait_leader();
        cluster.kill(leader);
        cluster.write("after");
        cluster.restart(leader);
        cluster.converge(&acknowledged);
        (world.time(), world.trace(), cluster.calls())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn power_may_fail_at_any_write_and_what_was_acknowledged_is_there() {
    // Each seed tears and loses other parts of what was not synced.
    for writes in 0..60 {
        let (world, _simulation) = Sim::new(writes);
        let mut cluster = Cluster::new(&world, 1);
        let mut acknowledged = write_some(&cluster, "s", 5);
        cluster.disks[&1].fail_after(writes);
        for number in 0..20 {
            let name = format!("t{number}");
            if cluster.try_write(1, &name).is_err() {
                break;
            }
            acknowledged.push(name);
            if number == 3 {
                let log = cluster.at(1);
                drop(world.run_on(1, async move { log.snapshot().await }));
            }
        }
        cluster.kill(1);
        cluster.restart(1);
        for name in &acknowledged {
            assert!(cluster.has(1, name), "{name} is lost when the power fails after {writes} writes");
        }
        cluster.write("after");
    }
}

#[test]
fn nothing_on_any_disk_is_plain_text() {
    let (world, _simulation) = Sim::new(1);
    let mut cluster = Cluster::new(&world, 2);
    cluster.write("a-very-secret-name");
    let log = cluster.at(1);
    world.run_on(1, async move { log.snapshot().await.unwrap() });
    cluster.join(3);
    cluster.converge(&["a-very-secret-name".to_owned()]);
    for disk in cluster.disks.values() {
        assert!(!disk.bytes().windows(11).any(|part| part == b"secret-name"));
    }
}
