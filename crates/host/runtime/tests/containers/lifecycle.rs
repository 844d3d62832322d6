//! Creating, starting, streams, ends, and ends before their time.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use runtime::{StartError, Stdio, WindowSize};

use crate::Test;
use crate::bed::{Bed, chain, finish, succeeded, wait};

pub(crate) const TESTS: &[Test] = &[
    ("output_and_exit_code_come_back", output_and_exit_code_come_back),
    ("input_reaches_the_program", input_reaches_the_program),
    ("closed_input_is_dev_null", closed_input_is_dev_null),
    ("a_terminal_is_a_controlling_terminal", a_terminal_is_a_controlling_terminal),
    ("nothing_runs_before_start", nothing_runs_before_start),
    ("dropping_before_start_ends_the_process", dropping_before_start_ends_the_process),
    ("missing_programs_are_refused_in_gos_words", missing_programs_are_refused_in_gos_words),
    ("a_script_without_interpreter_fails_at_start", a_script_without_interpreter_fails_at_start),
    ("the_engines_own_program_is_refused", the_engines_own_program_is_refused),
    ("no_descriptor_of_ours_is_inherited", no_descriptor_of_ours_is_inherited),
    ("namespaces_are_the_containers_own", namespaces_are_the_containers_own),
    ("init_reaps_orphans_and_keeps_the_exit_code", init_reaps_orphans_and_keeps_the_exit_code),
    ("a_container_dies_with_its_creator", a_container_dies_with_its_creator),
    ("signals_are_back_to_their_defaults", signals_are_back_to_their_defaults),
];

fn output_and_exit_code_come_back(bed: &Bed) {
    let ended = bed.run(&bed.spec("echo out; echo err >&2; exit 7"));
    assert_eq!((ended.code, &*ended.out, &*ended.err), (7, "out\n", "err\n"));
    let ended = bed.run(&bed.spec("kill -9 $$; sleep 5; exit 3"));
    assert_eq!(ended.code, 3, "process 1 of a namespace is immune against itself");
}

fn input_reaches_the_program(bed: &Bed) {
    let mut spec = bed.spec("cat");
    spec.process.stdin = true;
    let mut created = runtime::create(&spec).unwrap();
    created.start().unwrap();
    let Some(Stdio::Pipes { stdin, stdout, stderr }) = created.stdio.take() else { panic!("no pipes") };
    let mut input = File::from(stdin.unwrap());
    input.write_all(b"hello").unwrap();
    drop(input);
    let mut out = String::new();
    File::from(stdout).read_to_string(&mut out).unwrap();
    drop(stderr);
    assert_eq!(out, "hello");
    assert_eq!(finish(created).code, 0);
}

fn closed_input_is_dev_null(bed: &Bed) {
    assert_eq!(bed.output("readlink /proc/self/fd/0; cat"), "/dev/null\n");
}

fn a_terminal_is_a_controlling_terminal(bed: &Bed) {
    let mut spec = bed
        .spec("tty; stty size; echo hi > /dev/tty; ls -l /dev/console | cut -c1; readlink /proc/self/fd/2");
    spec.process.terminal = Some(WindowSize { rows: 33, cols: 99 });
    let ended = bed.run(&spec);
    assert_eq!((ended.code, &*ended.out), (0, "/dev/pts/0\r\n33 99\r\nhi\r\nc\r\n/dev/pts/0\r\n"));
}

fn nothing_runs_before_start(bed: &Bed) {
    let spec = bed.spec("echo ran > /ran");
    let mut created = runtime::create(&spec).unwrap();
    let ran = spec.root.upper.join("ran");
    assert!(!ran.exists());
    created.start().unwrap();
    assert_eq!(finish(created).code, 0);
    assert!(ran.exists());
}

fn dropping_before_start_ends_the_process(bed: &Bed) {
    let mut created = runtime::create(&bed.spec("exit 0")).unwrap();
    let group = created.cgroup.take().unwrap();
    let pid = created.pid;
    drop(created);
    assert_eq!(wait(pid), 1);
    group.remove().unwrap();
}

fn missing_programs_are_refused_in_gos_words(bed: &Bed) {
    let check = |program: &str, text: &str, code: i32| {
        let mut spec = bed.spec("");
        spec.process.args = vec![program.into()];
        let error = bed.refusal(&spec);
        assert_eq!((chain(&error).as_str(), error.exit_code()), (text, code));
    };
    check("foo", "exec: \"foo\": executable file not found in $PATH", 127);
    check("/x", "exec: \"/x\": stat /x: no such file or directory", 127);
    check("/etc/passwd", "exec: \"/etc/passwd\": permission denied", 126);
    check("/etc", "exec: \"/etc\": is a directory", 126);
    let mut spec = bed.spec("");
    spec.process.args = Vec::new();
    assert!(matches!(bed.refusal(&spec), StartError::Invalid { .. }));
}

fn a_script_without_interpreter_fails_at_start(bed: &Bed) {
    let mut spec = bed.spec("");
    std::fs::write(spec.root.upper.join("script"), "#!/nowhere\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(spec.root.upper.join("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    spec.process.args = vec!["/script".into()];
    let error = bed.refusal(&spec);
    assert_eq!((chain(&error).as_str(), error.exit_code()), ("exec /script: no such file or directory", 127));
}

fn the_engines_own_program_is_refused(bed: &Bed) {
    let mut spec = bed.spec("");
    spec.process.args = vec!["/proc/self/exe".into()];
    let text = chain(&bed.refusal(&spec));
    assert_eq!(text, "execute the engine's own program `/proc/self/exe`: operation not permitted");
}

fn no_descriptor_of_ours_is_inherited(bed: &Bed) {
    // Without close-on-exec, as a careless library would open it.
    let file = File::open("/etc/hostname").unwrap();
    let leaky = rustix::io::dup(file.as_fd()).unwrap();
    assert_eq!(bed.output("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ", "3 is the directory itself");
    drop(leaky);
}

fn namespaces_are_the_containers_own(bed: &Bed) {
    let out = bed.output("echo $$; hostname; ls /sys/class/net; for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..3], ["1", "box", "lo"]);
    for (line, name) in lines[3..].iter().zip(["pid", "net", "ipc", "uts", "mnt", "cgroup"]) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(*line, ours.to_str().unwrap(), "{name}");
    }
}

fn init_reaps_orphans_and_keeps_the_exit_code(bed: &Bed) {
    let mut spec =
        bed.spec("(sleep 0 & exit) ; [ $$ != 1 ] && sleep 0.1; ps -o pid,stat | grep -c Z; exit 9");
    spec.init = true;
    let ended = bed.run(&spec);
    assert_eq!((ended.code, &*ended.out), (9, "0\n"), "{}", ended.err);
    let mut spec = bed.spec("kill -TERM $$; sleep 5");
    spec.init = true;
    assert_eq!(bed.run(&spec).code, 143);
    // A signal to process 1 goes on to the program.
    let mut spec = bed.spec("trap 'exit 5' USR1; kill -USR1 1; sleep 5");
    spec.init = true;
    assert_eq!(bed.run(&spec).code, 5);
    let mut spec = bed.spec("");
    spec.init = true;
    spec.process.args = vec!["/bin/busybox-without-x".into()];
    std::fs::create_dir(spec.root.upper.join("bin")).unwrap();
    std::fs::write(spec.root.upper.join("bin/busybox-without-x"), "").unwrap();
    assert_eq!(bed.refusal(&spec).exit_code(), 126);
}

fn a_container_dies_with_its_creator(bed: &Bed) {
    let spec = bed.spec("sleep 60");
    let (read, write) = rustix::pipe::pipe().unwrap();
    // SAFETY: this test program has a single thread.
    let shim = unsafe { libc::fork() };
    if shim == 0 {
        let mut created = runtime::create(&spec).unwrap();
        created.start().unwrap();
        rustix::io::write(&write, &created.pid.to_ne_bytes()).unwrap();
        // SAFETY: ends only this copy of the program.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    drop(write);
    let mut bytes = [0; 4];
    File::from(read).read_exact(&mut bytes).unwrap();
    let container = i32::from_ne_bytes(bytes);
    let pidfd = rustix::process::Pid::from_raw(container)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    assert_eq!(wait(shim), 137);
    if let Some(pidfd) = pidfd {
        let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1, "the container lives on");
    }
    runtime::cgroup::Cgroup::open(&spec.cgroup.parent, &spec.cgroup.name).unwrap().remove().unwrap();
}

fn signals_are_back_to_their_defaults(bed: &Bed) {
    // The Rust start-up code ignores SIGPIPE.
    let mut spec = bed.spec("");
    // No shell, which has its own opinion on some signals.
    spec.process.args = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"].map(ToOwned::to_owned).to_vec();
    assert_eq!(succeeded(bed.run(&spec)), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}
