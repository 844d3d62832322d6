//! Services made per second, by one client and by many, at the leader and at a follower; three managers on this machine's
//! loopback addresses, real disks.
//!
//! `cargo bench -p manager`; the directory is where `TMPDIR` says.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails says so, and prints its results"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Swarm, spec, until};

/// How long each of them runs. chosen: long against an fsync, short against patience.
const RUN: Duration = Duration::from_secs(3);

fn creates_per_second(swarm: &Swarm, machine: usize, clients: usize, label: &str) {
    let manager = swarm.machines[machine].manager();
    let began = Instant::now();
    let written: u32 = swarm.machines[machine].block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for client in 0..clients {
            let (manager, label) = (manager.clone(), label.replace(' ', ""));
            running.spawn(async move {
                let mut written = 0;
                while began.elapsed() < RUN {
                    let name = format!("{label}-{clients}-{client}-{written}");
                    manager.create_service(spec(&name, 0), None).await.unwrap();
                    written += 1;
                }
                written
            });
        }
        running.join_all().await.into_iter().sum()
    });
    println!("{label}, {clients:2} clients: {:6.0} services/s", f64::from(written) / RUN.as_secs_f64());
}

fn reads_per_second(swarm: &Swarm, machine: usize, label: &str) {
    let machine = &swarm.machines[machine];
    let (began, mut read) = (Instant::now(), 0_u32);
    while began.elapsed() < RUN {
        machine.block_on(machine.manager().barrier()).unwrap();
        read += 1;
    }
    println!("{label}: {:6.0} reads/s", f64::from(read) / RUN.as_secs_f64());
}

fn main() {
    let alone = Swarm::new(1);
    reads_per_second(&alone, 0, "1 manager");
    for clients in [1, 16] {
        creates_per_second(&alone, 0, clients, "1 manager");
    }
    drop(alone);
    let swarm = Swarm::new(3);
    until("all are reachable", || swarm.is_whole());
    for (machine, label) in [(swarm.leader(), "leader of 3"), (swarm.follower(), "follower of 3")] {
        reads_per_second(&swarm, machine, label);
        for clients in [1, 16] {
            creates_per_second(&swarm, machine, clients, label);
        }
    }
}
