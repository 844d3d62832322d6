//! A container's life under its shim: output, input, signals, ends, restarts of the daemon, deaths of the shim.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use logs::{JsonFileSpec, LogSpec, OutputStream};
use runtime::Namespace;
use rustix::process::Signal;
use shim::client::{self, Adopted, AttachOptions, Ended, RequestError, SignalTarget, SpawnError};
use shim::{Launch, ShimSpec};
use support::{exited, is_alive, kill, place, read_all, soon, until};

const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };
const OUTPUT: AttachOptions = AttachOptions { stdin: false, stdout: true, stderr: true };

#[tokio::test]
async fn output_is_logged_and_reaches_a_client_that_attached_before_the_start() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.spec("echo out; echo err >&2; printf end; exit 3")).await;
    let mut attached = handle.attach(OUTPUT).await.unwrap();
    let started_at = handle.go().await.unwrap();
    assert_eq!(read_all(&mut attached).await, [b"out\nend".to_vec(), b"err\n".to_vec()]);
    let exit = exited(&handle).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, None, false));
    assert_eq!(exit.started_at, started_at);
    assert!(exit.finished_at >= exit.started_at);
    assert_eq!(place.logged_text(OutputStream::Stdout).await, "out\nend");
    assert_eq!(place.logged_text(OutputStream::Stderr).await, "err\n");
    assert!(!place.has_cgroup());
    assert!(!place.shim_dir().join(shim::SOCKET_FILE).exists());
    let shim_pid = handle.shim_pid();
    until("the shim ends", || !is_alive(shim_pid)).await;
}

#[tokio::test]
async fn input_comes_back_byte_for_byte_and_ends_with_the_client() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.interactive("cat", false)).await;
    let mut attached = handle.attach(ALL).await.unwrap();
    handle.go().await.unwrap();
    let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut reader, mut writer) = (attached.reader, attached.writer);
    let sent = input.clone();
    let sending = tokio::spawn(async move {
        for chunk in sent.chunks(100_000) {
            writer.write(chunk).await.unwrap();
        }
        writer.close().await.unwrap();
        writer
    });
    let mut output = Vec::new();
    while let Some(piece) = soon(reader.next()).await.unwrap() {
        output.extend(piece.bytes);
    }
    assert!(output == input, "{} of {} bytes", output.len(), input.len());
    attached.writer = sending.await.unwrap();
    assert_eq!(exited(&handle).await.code, 0);
}

#[tokio::test]
async fn input_ends_when_its_client_is_gone_without_a_word() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.interactive("cat; echo over", false)).await;
    let mut attached = handle.attach(ALL).await.unwrap();
    handle.go().await.unwrap();
    attached.writer.write(b"text\n").await.unwrap();
    drop(attached);
    assert_eq!(exited(&handle).await.code, 0);
    assert_eq!(place.logged_text(OutputStream::Stdout).await, "text\nover\n");
}

#[tokio::test]
async fn input_stays_open_without_stdin_once() {
    let Some(place) = place() else { return };
    let mut spec = place.interactive("read a; read b; echo $a $b", false);
    spec.stdin_once = false;
    let handle = place.spawn(&spec).await;
    handle.go().await.unwrap();
    for word in [&b"first\n"[..], b"second\n"] {
        let mut attached = handle.attach(ALL).await.unwrap();
        attached.writer.write(word).await.unwrap();
        // With the second word the container ends, and its shim perhaps before this arrives.
        drop(attached.writer.close().await);
    }
    exited(&handle).await;
    assert_eq!(place.logged_text(OutputStream::Stdout).await, "first second\n");
}

#[tokio::test]
async fn a_terminal_has_a_size_that_can_change() {
    let Some(place) = place() else { return };
    let script = "stty size; read line; stty size; exit 5";
    let handle = place.spawn(&place.interactive(script, true)).await;
    let mut attached = handle.attach(ALL).await.unwrap();
    handle.go().await.unwrap();
    let first = soon(attached.reader.next()).await.unwrap().unwrap();
    assert_eq!(first.bytes, b"24 80\r\n");
    handle.resize(40, 100).await.unwrap();
    attached.writer.write(b"x\n").await.unwrap();
    let rest = read_all(&mut attached).await;
    assert_eq!(String::from_utf8_lossy(&rest[0]), "x\r\n40 100\r\n");
    assert_eq!(exited(&handle).await.code, 5);
}

#[tokio::test]
async fn without_a_terminal_a_size_is_refused() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    assert!(matches!(handle.resize(1, 1).await, Err(RequestError::Refused { .. })));
    assert!(matches!(handle.signal(999, SignalTarget::Init).await, Err(RequestError::Refused { .. })));
    assert!(matches!(handle.go().await, Err(RequestError::Refused { .. })));
    handle.signal(libc::SIGKILL, SignalTarget::All).await.unwrap();
    let exit = exited(&handle).await;
    assert_eq!((exit.code, exit.signal), (137, Some(libc::SIGKILL)));
    assert!(matches!(handle.signal(libc::SIGKILL, SignalTarget::Init).await, Err(RequestError::Ended)));
}

#[tokio::test]
async fn a_signal_reaches_its_handler() {
    let Some(place) = place() else { return };
    let handle =
        place.spawn(&place.spec("trap 'echo caught; exit 7' TERM; echo up; while :; do sleep 1; done")).await;
    let mut attached = handle.attach(OUTPUT).await.unwrap();
    handle.go().await.unwrap();
    assert_eq!(soon(attached.reader.next()).await.unwrap().unwrap().bytes, b"up\n");
    handle.signal(libc::SIGTERM, SignalTarget::All).await.unwrap();
    assert_eq!(exited(&handle).await.code, 7);
}

#[tokio::test]
async fn a_daemon_that_dies_before_the_start_leaves_nothing() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.spec("echo never")).await;
    let (pid, shim_pid) = (handle.pid(), handle.shim_pid());
    assert!(is_alive(pid) && place.has_cgroup());
    drop(handle);
    until("shim and process end", || !is_alive(pid) && !is_alive(shim_pid)).await;
    assert!(!place.has_cgroup());
    assert!(!place.shim_dir().exists());
    assert_eq!(place.logged().await, []);
}

#[tokio::test]
async fn a_daemon_that_restarts_finds_its_container_and_later_its_end() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.interactive("echo one; read line; echo two; exit 9", false)).await;
    let started_at = handle.go().await.unwrap();
    let pid = handle.pid();
    drop(handle);
    let Adopted::Running(handle) = soon(client::adopt(&place.shim_dir())).await.unwrap() else {
        panic!("it runs")
    };
    assert_eq!((handle.pid(), handle.started_at()), (pid, Some(started_at)));
    let mut attached = handle.attach(ALL).await.unwrap();
    attached.writer.write(b"\n").await.unwrap();
    // Whether the first line had been read before is a matter of time.
    assert!(read_all(&mut attached).await[0].ends_with(b"two\n"));
    let exit = exited(&handle).await;
    assert_eq!(exit.code, 9);
    drop(handle);
    let Adopted::Exited(found) = soon(client::adopt(&place.shim_dir())).await.unwrap() else {
        panic!("it has ended")
    };
    assert_eq!(found, exit);
    assert_eq!(place.logged_text(OutputStream::Stdout).await, "one\ntwo\n");
}

#[tokio::test]
async fn a_container_that_ends_while_no_daemon_runs_is_on_record() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 0.2; echo late; exit 4").await;
    let shim_pid = handle.shim_pid();
    drop(handle);
    until("the shim ends", || !is_alive(shim_pid)).await;
    match soon(client::adopt(&place.shim_dir())).await.unwrap() {
        Adopted::Exited(exit) => assert_eq!(exit.code, 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.logged_text(OutputStream::Stdout).await, "late\n");
    assert!(!place.has_cgroup());
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along_and_is_reported() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000 & sleep 1000").await;
    let pid = handle.pid();
    kill(handle.shim_pid(), Signal::KILL);
    let Ended::Lost(lost) = soon(handle.wait()).await else { panic!("nobody recorded an end") };
    assert_eq!(lost.cgroup, Some((place.parent.clone(), place.name.clone())));
    soon(lost.clean_up()).await.unwrap();
    until("the container ends", || !is_alive(pid)).await;
    assert!(!place.has_cgroup());
    assert!(!place.shim_dir().exists());
    assert!(matches!(handle.signal(libc::SIGKILL, SignalTarget::Init).await, Err(RequestError::Ended)));
}

#[tokio::test]
async fn a_shim_killed_while_no_daemon_ran_is_found_lost() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    let (pid, shim_pid) = (handle.pid(), handle.shim_pid());
    drop(handle);
    kill(shim_pid, Signal::KILL);
    until("the container ends", || !is_alive(pid)).await;
    let Adopted::Lost(lost) = soon(client::adopt(&place.shim_dir())).await.unwrap() else {
        panic!("it is lost")
    };
    soon(lost.clean_up()).await.unwrap();
    assert!(!place.has_cgroup());
}

#[tokio::test]
async fn signals_that_stop_programs_do_not_stop_a_shim() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::PIPE] {
        kill(handle.shim_pid(), signal);
    }
    // An answer means that it has outlived them.
    handle.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    assert_eq!(exited(&handle).await.code, 137);
}

#[tokio::test]
async fn a_missing_program_is_told_in_dockers_words_and_leaves_nothing() {
    let Some(place) = place() else { return };
    let mut container = place.container("");
    container.process.args = vec!["no-such-program".into()];
    let spec = ShimSpec::new(Launch::Container(Box::new(container)), place.log(), false);
    let failure = match soon(client::spawn(&place.shim_dir(), &spec, Some(&support::exe()))).await {
        Err(SpawnError::Create(failure)) => failure,
        Err(other) => panic!("{other:?}"),
        Ok(handle) => match handle.go().await {
            Err(RequestError::Start(failure)) => failure,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(failure.message, "exec: \"no-such-program\": executable file not found in $PATH");
    assert_eq!(failure.exit_code, 127);
    until("nothing is left", || !place.shim_dir().exists() && !place.has_cgroup()).await;
}

#[tokio::test]
async fn a_program_the_kernel_refuses_is_told_at_the_start() {
    let Some(place) = place() else { return };
    let upper = place.dir.path().join("upper");
    fs::write(upper.join("script"), "no interpreter and no program\0").unwrap();
    fs::set_permissions(upper.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut container = place.container("");
    container.process.args = vec!["/script".into()];
    let spec = ShimSpec::new(Launch::Container(Box::new(container)), place.log(), false);
    let handle = place.spawn(&spec).await;
    let mut attached = handle.attach(OUTPUT).await.unwrap();
    match soon(handle.go()).await {
        Err(RequestError::Start(failure)) => {
            assert!(failure.message.ends_with("exec format error"), "{}", failure.message);
            assert_eq!(failure.exit_code, 126);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(soon(attached.reader.next()).await.unwrap(), None);
    assert!(matches!(soon(handle.wait()).await, Ended::Lost(lost) if lost.cgroup.is_none()));
    until("nothing is left", || !place.shim_dir().exists() && !place.has_cgroup()).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_container_until_it_is_gone() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.spec("yes | head -c 5000000")).await;
    let attached = handle.attach(OUTPUT).await.unwrap();
    handle.go().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), handle.wait()).await.is_err());
    drop(attached);
    assert_eq!(exited(&handle).await.code, 0);
    assert_eq!(place.logged_text(OutputStream::Stdout).await.len(), 5_000_000);
}

#[tokio::test]
async fn a_full_disk_costs_log_lines_only() {
    let Some(place) = place() else { return };
    let full = JsonFileSpec { path: "/dev/full".into(), max_size: None, max_files: 1, attrs: [].into() };
    let mut spec = place.spec("yes | head -n 1000; exit 6");
    spec.log = LogSpec::JsonFile(full);
    let handle = place.spawn(&spec).await;
    let mut attached = handle.attach(OUTPUT).await.unwrap();
    handle.go().await.unwrap();
    assert_eq!(read_all(&mut attached).await[0].len(), 2_000);
    let exit = exited(&handle).await;
    assert_eq!((exit.code, exit.log_lines_dropped), (6, 1_000));
}

#[tokio::test]
async fn one_more_process_runs_in_the_container_and_leaves_it_alone() {
    let Some(place) = place() else { return };
    let container = place.start("sleep 1000").await;
    let exec = place.exec(&container, "echo hello from $$; cat /proc/1/comm; exit 11").await;
    let mut attached = exec.attach(OUTPUT).await.unwrap();
    exec.go().await.unwrap();
    let [output, _] = read_all(&mut attached).await;
    let output = String::from_utf8(output).unwrap();
    assert!(output.starts_with("hello from ") && output.ends_with("sleep\n"), "{output}");
    assert_eq!(exited(&exec).await.code, 11);
    assert!(is_alive(container.pid()) && place.has_cgroup());
    container.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    exited(&container).await;
}

#[tokio::test]
async fn a_process_in_the_background_does_not_hold_up_the_end_of_an_exec() {
    let Some(place) = place() else { return };
    let container = place.start("sleep 1000").await;
    let exec = place.exec(&container, "(sleep 0.3; echo late; sleep 1000) & echo first").await;
    let mut attached = exec.attach(OUTPUT).await.unwrap();
    exec.go().await.unwrap();
    let before = Instant::now();
    assert_eq!(read_all(&mut attached).await[0], b"first\nlate\n");
    assert_eq!(exited(&exec).await.code, 0);
    assert!(before.elapsed() < Duration::from_secs(8));
    container.signal(libc::SIGKILL, SignalTarget::All).await.unwrap();
    exited(&container).await;
}

#[tokio::test]
async fn without_a_pid_namespace_the_whole_container_ends_with_its_first_process() {
    let Some(place) = place() else { return };
    let mut container = place.container("sleep 1000 & echo $!; exit 0");
    container.namespaces.pid = Namespace::Host;
    let handle =
        place.spawn(&ShimSpec::new(Launch::Container(Box::new(container)), place.log(), false)).await;
    handle.go().await.unwrap();
    assert_eq!(exited(&handle).await.code, 0);
    let pid = place.logged_text(OutputStream::Stdout).await.trim().parse().unwrap();
    until("the background ends", || !is_alive(pid)).await;
    assert!(!place.has_cgroup());
}

#[tokio::test]
async fn nothing_of_the_daemon_is_held_open() {
    let Some(place) = place() else { return };
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).unwrap();
    let handle = place.start("sleep 1000").await;
    drop(write);
    let mut rest = Vec::new();
    let reading = tokio::task::spawn_blocking(move || read.read_to_end(&mut rest).unwrap());
    assert_eq!(soon(reading).await.unwrap(), 0);
    handle.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    exited(&handle).await;
}

#[tokio::test]
async fn a_shim_is_small_also_after_much_output() {
    let Some(place) = place() else { return };
    let handle = place.start("echo ready; sleep 0.3; yes | head -c 5000000; echo over; sleep 1000").await;
    // Only what is this process's own: its program's pages belong to all shims and the daemon together.
    let anonymous_kib = || -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", handle.shim_pid())).unwrap();
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        anonymous.split_whitespace().next().unwrap().parse().unwrap()
    };
    let log_len = || fs::metadata(place.log_path()).map_or(0, |file| file.len());
    until("the first line is logged", || log_len() > 0).await;
    let first = anonymous_kib();
    until("the last line is logged", || {
        fs::read(place.log_path()).unwrap().windows(6).rev().take(200).any(|text| text == b"over\\n")
    })
    .await;
    let last = anonymous_kib();
    eprintln!("shim: {first} KiB private after its start, {last} KiB after 5 MB of output");
    // The goal is 200 KiB for the released program; this one isn't optimised.
    assert!(first < 256 && last < 300, "{first} and {last} KiB");
    handle.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    exited(&handle).await;
}

#[tokio::test]
async fn a_shim_is_spared_when_memory_runs_out_and_its_container_is_not() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    let score =
        |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    assert_eq!(score(handle.pid()), "0");
    if support::has_capability(24) {
        assert_eq!(score(handle.shim_pid()), "-999");
    } else {
        eprintln!("NOT CHECKED: protection from the OOM killer needs CAP_SYS_RESOURCE");
    }
    handle.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    exited(&handle).await;
}

#[tokio::test]
async fn a_shim_is_quick() {
    let Some(place) = place() else { return };
    let begin = Instant::now();
    let handle = place.spawn(&place.spec("exit 0")).await;
    let created = begin.elapsed();
    handle.go().await.unwrap();
    let started = begin.elapsed();
    exited(&handle).await;
    eprintln!("created after {created:?}, started after {started:?}, over after {:?}", begin.elapsed());
    // Far more than it takes, on any machine: this only guards against a wait that crept in.
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn every_attached_client_gets_everything() {
    let Some(place) = place() else { return };
    let handle = place.spawn(&place.spec("yes | head -c 300000")).await;
    let mut first = handle.attach(OUTPUT).await.unwrap();
    let mut second = handle.attach(OUTPUT).await.unwrap();
    let only_errors = AttachOptions { stdout: false, ..OUTPUT };
    let mut third = handle.attach(only_errors).await.unwrap();
    handle.go().await.unwrap();
    let (first, second) = tokio::join!(read_all(&mut first), read_all(&mut second));
    assert_eq!((first[0].len(), second[0].len()), (300_000, 300_000));
    assert!(read_all(&mut third).await.iter().all(Vec::is_empty));
    exited(&handle).await;
}

#[tokio::test]
async fn a_client_that_talks_nonsense_harms_nobody() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    let socket = place.shim_dir().join(shim::SOCKET_FILE);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let answers = tokio::task::spawn_blocking(move || {
        let mut unknown = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        unknown.write_all(&[50, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]).unwrap();
        unknown.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        unknown.read_to_end(&mut answer).unwrap();
        let mut endless = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        endless.write_all(&[3, 0, 0, 0, 255, 255, 255, 255]).unwrap();
        // Closed from the other side after its greeting.
        endless.read_to_end(&mut Vec::new()).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answers = soon(answers).await.unwrap();
    assert!(answers.contains("\"protocol\":1") && answers.contains("does not know the request"), "{answers}");
    handle.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    assert_eq!(exited(&handle).await.code, 137);
}

#[tokio::test]
async fn a_directory_may_have_a_long_name() {
    let Some(place) = place() else { return };
    let dir = place.dir.path().join("d".repeat(100)).join("e".repeat(64));
    let handle = soon(client::spawn(&dir, &place.spec("exit 2"), Some(&support::exe()))).await.unwrap();
    handle.go().await.unwrap();
    assert_eq!(exited(&handle).await.code, 2);
}

#[tokio::test]
async fn a_directory_serves_one_shim_at_a_time_and_forgets_earlier_ones() {
    let Some(place) = place() else { return };
    let first = place.start("read line < /dev/null; exit 1").await;
    assert_eq!(exited(&first).await.code, 1);
    drop(first);
    let second = place.start("sleep 1000").await;
    let third = soon(client::spawn(&place.shim_dir(), &place.spec("exit 3"), Some(&support::exe()))).await;
    assert!(matches!(third, Err(SpawnError::Orders { .. })), "{third:?}");
    assert!(matches!(soon(client::adopt(&place.shim_dir())).await.unwrap(), Adopted::Running(_)));
    second.signal(libc::SIGKILL, SignalTarget::Init).await.unwrap();
    assert_eq!(exited(&second).await.code, 137);
}

#[tokio::test]
async fn a_process_starts_without_anything_of_its_shim() {
    let Some(place) = place() else { return };
    let script = "umask; while read name value; do case $name in Sig[BIC]*) echo $name $value;; esac; done \
                  < /proc/self/status; for fd in /proc/self/fd/*; do echo $fd; done";
    let handle = place.start(script).await;
    exited(&handle).await;
    let found = place.logged_text(OutputStream::Stdout).await;
    // A shell ignores SIGQUIT by itself.
    assert!(found.starts_with("0022\nSigBlk: 0000000000000000\nSigIgn: 0000000000000004\n"), "{found}");
    assert!(!found.contains("/proc/self/fd/4"), "{found}");
}

#[tokio::test]
async fn a_shim_whose_directory_is_gone_ends_with_its_container() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 60").await;
    let (shim_pid, pid) = (handle.shim_pid(), handle.pid());
    fs::remove_dir_all(place.shim_dir()).unwrap();
    kill(pid, Signal::KILL);
    // The news comes by the connection that is there already.
    assert_eq!(exited(&handle).await.code, 137);
    until("the shim ends", || !is_alive(shim_pid)).await;
    assert!(!place.has_cgroup());
}

#[tokio::test]
async fn however_many_are_attached_the_container_can_be_stopped() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 60").await;
    let mut attached = Vec::new();
    let error = loop {
        match soon(handle.attach(OUTPUT)).await {
            Ok(next) => attached.push(next),
            Err(error) => break error,
        }
        assert!(attached.len() < 64, "there is no limit");
    };
    assert_eq!(error.to_string(), "too many clients are attached");
    soon(handle.signal(9, SignalTarget::All)).await.unwrap();
    assert_eq!(exited(&handle).await.code, 137);
}
