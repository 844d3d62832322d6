//! Limits that hold, kills that are told, groups that go away.

use runtime::CgroupSpec;
use runtime::cgroup::Cgroup;

use crate::Test;
use crate::bed::{Bed, finish, succeeded, wait};

pub(crate) const TESTS: &[Test] = &[
    ("limits_are_in_force", limits_are_in_force),
    ("a_kill_for_lack_of_memory_is_told", a_kill_for_lack_of_memory_is_told),
    ("a_container_sees_only_its_own_groups", a_container_sees_only_its_own_groups),
    ("devices_are_refused_unless_allowed", devices_are_refused_unless_allowed),
    ("kill_all_ends_every_process", kill_all_ends_every_process),
    ("a_paused_container_stands_still", a_paused_container_stands_still),
    ("groups_are_listed_and_removed", groups_are_listed_and_removed),
    ("empty_parents_are_removed_and_only_those", empty_parents_are_removed_and_only_those),
    (
        "a_group_without_limits_goes_only_when_nothing_is_in_it",
        a_group_without_limits_goes_only_when_nothing_is_in_it,
    ),
    ("stats_show_use_and_limits", stats_show_use_and_limits),
    ("paths_that_lead_elsewhere_are_refused", paths_that_lead_elsewhere_are_refused),
];

fn limits_are_in_force(bed: &Bed) {
    let mut spec = bed.spec(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max cpuset/cpuset.cpus \
         2>/dev/null || cat memory.max cpu.max pids.max cpuset.cpus.effective",
    );
    spec.cgroup.limits.memory_bytes = Some(64 << 20);
    spec.cgroup.limits.set_nano_cpus(500_000_000);
    spec.cgroup.limits.pids_max = Some(42);
    spec.cgroup.limits.cpuset_cpus = "0".into();
    let out = succeeded(bed.run(&spec));
    assert!(["67108864\n50000\n42\n0\n", "67108864\n50000 100000\n42\n0\n"].contains(&&*out), "{out}");
    let mut spec = bed.spec("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    spec.cgroup.limits.pids_max = Some(4);
    assert!(bed.run(&spec).err.contains("fork"), "more processes than allowed");
}

fn a_kill_for_lack_of_memory_is_told(bed: &Bed) {
    // The kernel is told whom to choose: it might take the shell.
    let script = "head -c 200m /dev/zero | (echo 1000 > /proc/self/oom_score_adj; tail > /dev/null); echo $?";
    let mut spec = bed.spec(script);
    spec.cgroup.limits.memory_bytes = Some(16 << 20);
    spec.cgroup.limits.memory_swap_bytes = Some(16 << 20);
    let mut created = runtime::create(&spec).unwrap();
    let group = created.cgroup.take().unwrap();
    assert_eq!(group.oom_kills(), 0);
    created.start().unwrap();
    let ended = finish(created);
    assert_eq!((ended.code, &*ended.out), (0, "137\n"));
    assert_eq!(group.oom_kills(), 1);
    group.remove().unwrap();
}

fn a_container_sees_only_its_own_groups(bed: &Bed) {
    let out = bed.output("cut -d: -f3 /proc/self/cgroup | sort -u");
    assert_eq!(out, "/\n");
    let out =
        bed.output("cat /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null || cat /sys/fs/cgroup/cgroup.procs");
    assert!(out.starts_with("1\n"), "{out}");
}

fn devices_are_refused_unless_allowed(bed: &Bed) {
    // A block device that surely is on this machine: the one with the root file system or a loop device.
    let script = "mknod /tmp/d b 7 0 && { cat /tmp/d >/dev/null 2>&1; echo $?; }; mknod /tmp/f c 1 7 && head -c1 /tmp/f | wc -c; \
                  mknod /tmp/k c 1 11; head -c1 /tmp/k 2>&1 | grep -c permitted";
    assert_eq!(bed.output(script), "1\n1\n1\n");
}

fn kill_all_ends_every_process(bed: &Bed) {
    let spec = bed.spec("sleep 100 & sleep 100 & (sleep 100 & wait) & wait");
    let mut created = runtime::create(&spec).unwrap();
    created.start().unwrap();
    let group = created.cgroup.take().unwrap();
    assert!(group.pids().unwrap().contains(&created.pid));
    group.kill_all().unwrap();
    assert_eq!(wait(created.pid), 137);
    group.remove().unwrap();
    assert!(group.pids().unwrap().is_empty());
    group.kill_all().unwrap();
    group.remove().unwrap();
}

fn a_paused_container_stands_still(bed: &Bed) {
    let mut spec = bed.spec("while read line; do echo $line; done");
    spec.process.stdin = true;
    let mut created = runtime::create(&spec).unwrap();
    created.start().unwrap();
    let group = created.cgroup.take().unwrap();
    group.freeze(true).unwrap();
    let Some(runtime::Stdio::Pipes { stdin, stdout, stderr }) = created.stdio.take() else {
        panic!("no pipes")
    };
    let stdin = stdin.unwrap();
    rustix::io::write(&stdin, b"x\n").unwrap();
    let ready = |milliseconds: i64| {
        let mut poll = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        rustix::event::poll(&mut poll, Some(&limit)).unwrap() == 1
    };
    assert!(!ready(50));
    group.freeze(false).unwrap();
    assert!(ready(900));
    drop((stdin, stderr));
    assert_eq!(wait(created.pid), 0);
    group.remove().unwrap();
}

fn groups_are_listed_and_removed(bed: &Bed) {
    let spec =
        CgroupSpec { parent: format!("{}/list", bed.parent), name: "one".into(), ..CgroupSpec::default() };
    let group = Cgroup::create(&spec, &[]).unwrap();
    assert_eq!(Cgroup::list(&spec.parent).unwrap(), ["one"]);
    // Taken over, as after a crash.
    Cgroup::create(&spec, &[]).unwrap();
    group.remove().unwrap();
    assert!(Cgroup::list(&spec.parent).unwrap().is_empty());
    assert!(Cgroup::list("/no/such/parent").unwrap().is_empty());
    Cgroup::open(&bed.parent, "list").unwrap().remove().unwrap();
}

fn a_group_without_limits_goes_only_when_nothing_is_in_it(bed: &Bed) {
    let created = runtime::create(&bed.spec("sleep 60")).unwrap();
    let parent = bed.parent.clone();
    let open = || Cgroup::unlimited(&parent, "plain").unwrap();
    open().add(created.pid).unwrap();
    assert!(!open().remove_if_empty(), "a process is in it");
    assert!(open().pids().unwrap().contains(&created.pid));
    created.cgroup.as_ref().unwrap().add(created.pid).unwrap();
    assert!(open().remove_if_empty());
    assert!(Cgroup::open(&parent, "plain").unwrap().remove_if_empty(), "none there is fine");
    created.cgroup.as_ref().unwrap().kill_all().unwrap();
    let group = created.cgroup.clone().unwrap();
    assert_eq!(wait(created.pid), 137);
    group.remove().unwrap();
}

fn stats_show_use_and_limits(bed: &Bed) {
    let mut spec = bed.spec("sleep 100");
    spec.cgroup.limits.memory_bytes = Some(64 << 20);
    spec.cgroup.limits.pids_max = Some(42);
    let mut created = runtime::create(&spec).unwrap();
    created.start().unwrap();
    let group = created.cgroup.take().unwrap();
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit, stats.pids_current), (64 << 20, 42, 1));
    assert!(stats.cpu_usage_ns > 0 && stats.memory_usage_bytes > 0, "{stats:?}");
    group.kill_all().unwrap();
    wait(created.pid);
    group.remove().unwrap();
    assert!(group.stats().is_err());
}

fn empty_parents_are_removed_and_only_those(bed: &Bed) {
    let top = format!("{}-parents", bed.spec("true").cgroup.parent.trim_end_matches('/'));
    let parent = format!("{top}/below");
    let missing = runtime::cgroup::missing_groups(&parent).unwrap();
    assert!(missing.len() >= 2 && missing.len().is_multiple_of(2), "{missing:?}");
    let spec = |name: &str| CgroupSpec { parent: parent.clone(), name: name.into(), ..CgroupSpec::default() };
    let group = Cgroup::create(&spec("one"), &[]).unwrap();
    assert!(runtime::cgroup::missing_groups(&parent).unwrap().is_empty());
    // In use: everything stays, and that is no error.
    let left = runtime::cgroup::remove_empty(&missing);
    assert_eq!(left.len(), missing.len());
    assert!(left.iter().all(|(path, error)| path.exists() && error.is_none()), "{left:?}");
    group.remove().unwrap();
    assert!(runtime::cgroup::remove_empty(&missing).is_empty());
    assert_eq!(runtime::cgroup::missing_groups(&parent).unwrap(), missing);
    // Gone already.
    assert!(runtime::cgroup::remove_empty(&missing).is_empty());
}

fn paths_that_lead_elsewhere_are_refused(bed: &Bed) {
    for (parent, name) in
        [("/..", "x"), ("/a/../..", "x"), (&*bed.parent, ".."), (&*bed.parent, "a/b"), (&*bed.parent, "")]
    {
        assert!(Cgroup::open(parent, name).is_err(), "{parent} {name}");
    }
}
