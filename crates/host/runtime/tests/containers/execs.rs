//! Extra processes in running containers.

use runtime::{Created, Spec, StartError, WindowSize};

use crate::Test;
use crate::bed::{Bed, Ended, chain, finish, succeeded, wait};

pub(crate) const TESTS: &[Test] = &[
    ("an_extra_process_is_inside_in_every_way", an_extra_process_is_inside_in_every_way),
    ("an_extra_process_has_its_own_user_and_terminal", an_extra_process_has_its_own_user_and_terminal),
    ("an_extra_process_is_refused_in_gos_words", an_extra_process_is_refused_in_gos_words),
    ("an_ended_container_takes_no_extra_process", an_ended_container_takes_no_extra_process),
    ("namespaces_of_another_container_can_be_joined", namespaces_of_another_container_can_be_joined),
];

/// A container that runs until `stop`.
fn running(bed: &Bed, spec: &Spec) -> Created {
    let _ = bed;
    let mut created = runtime::create(spec).unwrap();
    created.start().unwrap();
    created
}

fn stop(mut created: Created) {
    created.cgroup.take().unwrap().remove().unwrap();
    wait(created.pid);
}

fn exec(bed: &Bed, spec: &Spec, target: &Created, script: &str) -> Ended {
    let mut extra = runtime::exec(&bed.exec_spec(spec, target, script))
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    extra.start().unwrap();
    finish(extra)
}

fn an_extra_process_is_inside_in_every_way(bed: &Bed) {
    let mut spec = bed.spec("sleep 100");
    spec.process.no_new_privileges = true;
    let target = running(bed, &spec);
    let script = "for n in pid net ipc uts mnt cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; \
                  hostname; cut -d: -f3 /proc/self/cgroup | sort -u; ls -d /proc/[0-9]* | wc -l; \
                  grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '; ls /proc/self/fd | wc -l; umask";
    let out = succeeded(exec(bed, &spec, &target, script));
    // Process 1, the shell, `ls` and `wc`; and the descriptor with which `ls` reads its directory.
    let expect =
        "box\n/\n4\nCapEff:00000000a80425fb CapBnd:00000000a80425fb NoNewPrivs:1 Seccomp:2 4\n0022\n";
    assert_eq!(out, expect);
    assert_eq!(exec(bed, &spec, &target, "exit 4").code, 4);
    let us = std::fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(
        us,
        std::fs::read_link("/proc/self/ns/pid").unwrap(),
        "our own children are born at home again"
    );
    stop(target);
}

fn an_extra_process_has_its_own_user_and_terminal(bed: &Bed) {
    let spec = bed.spec("sleep 100");
    let target = running(bed, &spec);
    let mut extra = bed.exec_spec(&spec, &target, "id -u; tty; stty size; pwd; echo $HOME");
    extra.process.user = "web".into();
    extra.process.cwd = "/tmp".into();
    extra.process.terminal = Some(WindowSize { rows: 5, cols: 6 });
    let mut created = runtime::exec(&extra).unwrap();
    created.start().unwrap();
    let ended = finish(created);
    assert_eq!((ended.code, &*ended.out), (0, "33\r\n/dev/pts/0\r\n5 6\r\n/tmp\r\n/var/www\r\n"));
    stop(target);
}

fn an_extra_process_is_refused_in_gos_words(bed: &Bed) {
    let spec = bed.spec("sleep 100");
    let target = running(bed, &spec);
    let mut extra = bed.exec_spec(&spec, &target, "");
    extra.process.args = vec!["foo".into()];
    let error = runtime::exec(&extra).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"foo\": executable file not found in $PATH");
    stop(target);
}

fn an_ended_container_takes_no_extra_process(bed: &Bed) {
    let spec = bed.spec("sleep 100");
    let target = running(bed, &spec);
    let extra = bed.exec_spec(&spec, &target, "true");
    let mut reused = extra.clone();
    reused.target_start_time = extra.target_start_time.map(|time| time - 1);
    assert!(matches!(runtime::exec(&reused), Err(StartError::TargetGone { .. })));
    stop(target);
    assert!(matches!(runtime::exec(&extra), Err(StartError::TargetGone { .. })));
}

fn namespaces_of_another_container_can_be_joined(bed: &Bed) {
    let spec = bed.spec("sleep 100");
    let target = running(bed, &spec);
    let other = |name: &str| format!("/proc/{}/ns/{name}", target.pid).into();
    let mut guest = bed.spec("for n in pid net ipc uts; do readlink /proc/self/ns/$n; done; hostname");
    guest.namespaces.pid = runtime::Namespace::Path(other("pid"));
    guest.namespaces.ipc = runtime::Namespace::Path(other("ipc"));
    guest.namespaces.uts = runtime::Namespace::Path(other("uts"));
    guest.network = runtime::Network::Path(other("net"));
    let out = succeeded(bed.run(&guest));
    for (line, name) in out.lines().zip(["pid", "net", "ipc", "uts"]) {
        let theirs = std::fs::read_link(format!("/proc/{}/ns/{name}", target.pid)).unwrap();
        assert_eq!(line, theirs.to_str().unwrap());
    }
    assert!(out.ends_with("box\n"));
    stop(target);
}
