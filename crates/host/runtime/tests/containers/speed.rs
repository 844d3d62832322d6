//! How long a container takes. Prints figures; fails only when something is wildly off.

use std::time::Instant;

use crate::Test;
use crate::bed::{Bed, wait};

pub(crate) const TESTS: &[Test] =
    &[("a_container_starts_in_a_few_milliseconds", a_container_starts_in_a_few_milliseconds)];

fn a_container_starts_in_a_few_milliseconds(bed: &Bed) {
    const ROUNDS: usize = 30;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let mut spec = bed.spec("");
        spec.process.args = vec!["true".into()];
        spec.cgroup.limits.memory_bytes = Some(64 << 20);
        spec.cgroup.limits.pids_max = Some(64);
        spec.cgroup.limits.set_nano_cpus(500_000_000);
        let begin = Instant::now();
        let mut created = runtime::create(&spec).unwrap();
        let create = begin.elapsed();
        created.start().unwrap();
        let start = begin.elapsed();
        wait(created.pid);
        created.cgroup.take().unwrap().remove().unwrap();
        times.push((start, create, begin.elapsed()));
    }
    times.sort_unstable();
    let (start, create, all) = times[ROUNDS / 2];
    println!("median of {ROUNDS}: create {create:?}, create and start {start:?}, whole life {all:?}");
    assert!(start.as_millis() < 200, "a container took {start:?} to start");
}
