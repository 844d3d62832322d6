//! Capabilities, no_new_privs, the system call filter, limits.

use runtime::{Capabilities, Rlimit, defaults, seccomp};

use crate::Test;
use crate::bed::{Bed, succeeded};

pub(crate) const TESTS: &[Test] = &[
    ("capabilities_are_dockers", capabilities_are_dockers),
    ("the_filter_is_on_with_and_without_new_privileges", the_filter_is_on_with_and_without_new_privileges),
    ("forbidden_calls_are_refused", forbidden_calls_are_refused),
    ("an_unconfined_process_has_no_filter", an_unconfined_process_has_no_filter),
    ("resource_limits_and_oom_score_are_set", resource_limits_and_oom_score_are_set),
    ("a_privileged_container_may_mount", a_privileged_container_may_mount),
];

const SHOW: &str =
    "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '; umask";

fn capabilities_are_dockers(bed: &Bed) {
    let plain = "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb \
                 CapAmb:0000000000000000 NoNewPrivs:0 Seccomp:2 0022\n";
    assert_eq!(bed.output(SHOW), plain);
    let mut spec = bed.spec(SHOW);
    spec.process.user = "web".into();
    spec.process.no_new_privileges = true;
    let other = "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb \
                 CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2 0022\n";
    assert_eq!(succeeded(bed.run(&spec)), other);
}

fn the_filter_is_on_with_and_without_new_privileges(bed: &Bed) {
    for no_new_privileges in [false, true] {
        for capabilities in [Capabilities(0), defaults::capabilities(), defaults::all_capabilities()] {
            let mut spec = bed.spec("grep Seccomp: /proc/self/status");
            spec.process.no_new_privileges = no_new_privileges;
            spec.process.capabilities = capabilities;
            assert_eq!(succeeded(bed.run(&spec)), "Seccomp:\t2\n");
        }
    }
}

fn forbidden_calls_are_refused(bed: &Bed) {
    // Even with CAP_SYS_ADMIN in the process, the filter compiled without it would say no; here the filter comes first.
    let out =
        bed.run(&bed.spec("unshare -m true; mount -t tmpfs x /tmp; chroot / true && echo chroot; swapon /x"));
    assert_eq!(out.out, "chroot\n");
    for text in ["unshare: unshare(0x20000): Operation not permitted", "swapon: /x: "] {
        assert!(out.err.contains(text), "{}", out.err);
    }
    assert!(out.err.contains("mount:"), "{}", out.err);
    // Calls that busybox has no applet for are tried by this very program, as the child of a filter.
    let (keyctl, clone3, newer) = (try_call(libc::SYS_keyctl), try_call(libc::SYS_clone3), try_call(999));
    assert_eq!((keyctl, clone3, newer), (libc::EPERM, libc::ENOSYS, libc::ENOSYS));
    assert_eq!(try_call(libc::SYS_unshare), libc::EPERM);
    assert_eq!(try_call(libc::SYS_mount), libc::EPERM);
    assert_eq!(try_call(libc::SYS_getppid), 0);
}

/// The error of a call with zeroes as arguments, made under the default filter.
fn try_call(call: i64) -> i32 {
    let filter = seccomp::compile(defaults::capabilities());
    // SAFETY: this test program has a single thread; the child only makes the calls below and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap(),
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the program outlives the call; the tried call has zeroes only.
        unsafe {
            if libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) != 0 {
                libc::_exit(200);
            }
            let failed = libc::syscall(call, 0, 0, 0, 0, 0, 0) < 0;
            libc::_exit(if failed { *libc::__errno_location() } else { 0 });
        }
    }
    crate::bed::wait(pid)
}

fn an_unconfined_process_has_no_filter(bed: &Bed) {
    let mut spec = bed.spec("grep Seccomp: /proc/self/status");
    spec.process.seccomp = seccomp::Profile::Unconfined;
    assert_eq!(succeeded(bed.run(&spec)), "Seccomp:\t0\n");
}

fn resource_limits_and_oom_score_are_set(bed: &Bed) {
    let mut spec = bed.spec("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj");
    let limit = |name: &str, soft, hard| Rlimit { name: name.into(), soft, hard };
    spec.process.rlimits = vec![limit("nofile", 77, 99), limit("core", 0, u64::MAX)];
    spec.process.oom_score_adj = Some(500);
    assert_eq!(succeeded(bed.run(&spec)), "77\n99\n0\n500\n");
    spec.process.rlimits = vec![limit("nonsense", 1, 1)];
    assert!(bed.refusal(&spec).to_string().contains("unknown resource limit `nonsense`"));
}

fn a_privileged_container_may_mount(bed: &Bed) {
    let mut spec = bed.spec(
        "mount -t tmpfs x /tmp && mkdir /sys/fs/cgroup/pids/x && rmdir /sys/fs/cgroup/pids/x && echo ok",
    );
    if runtime::cgroup::layout().unwrap() == runtime::cgroup::Layout::V2 {
        spec =
            bed.spec("mount -t tmpfs x /tmp && mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo ok");
    }
    spec.process.capabilities = defaults::all_capabilities();
    spec.process.seccomp = seccomp::Profile::Unconfined;
    spec.mounts = defaults::mounts(Vec::new(), defaults::SHM_BYTES, true);
    spec.masked_paths.clear();
    spec.readonly_paths.clear();
    spec.device_rules = defaults::device_rules(true);
    assert_eq!(succeeded(bed.run(&spec)), "ok\n");
}
