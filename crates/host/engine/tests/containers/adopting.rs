//! What a new engine makes of what the last one left.

use docker::{ContainerCreateRequest, ExecConfig, HostConfig, RestartPolicy};
use engine::{AttachOptions, ExecStartOptions, LogsOptions, Status, StopOptions, WaitCondition};

use crate::world::{World, plain, shell};

crate::cases![
    a_running_container_stays_the_same_process,
    an_end_while_nobody_looked_is_taken_in,
    a_shim_that_dies_takes_its_container_along,
    a_shim_that_died_while_nobody_looked_is_noticed,
    policies_apply_to_what_ended_meanwhile,
    what_nobody_knows_is_swept,
    a_detached_exec_goes_on,
    a_stop_under_way_does_not_hold_the_engine_and_is_finished_by_the_next,
    a_shared_parent_of_cgroups_is_left_alone,
    a_shim_that_does_not_answer_costs_its_container_nothing,
    a_freezer_says_whether_a_container_is_paused,
    fifty_containers_are_adopted_in_a_moment,
];

fn pid_of(world: &World, id: &str) -> i32 {
    world.engine.state(id).unwrap().pid.unwrap()
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A process that nobody has reaped yet is not alive.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until the shell's `cat` has the pipe open: it is its only child then, past the open.
async fn until_reading(pid: i32) {
    let has_gate = |pid: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/3"));
        link.is_ok_and(|path| path.ends_with("gate"))
    };
    loop {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if children.split_whitespace().any(has_gate) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn until_gone(pid: i32) {
    while is_alive(pid) {
        tokio::task::yield_now().await;
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn a_running_container_stays_the_same_process(mut world: World) {
    let script = "trap 'echo bye; exit 6' TERM; echo hello; while :; do sleep 0.05; done";
    let id = world.create(script, HostConfig::default()).await;
    world.engine.start(&id).await.unwrap();
    let before = world.engine.inspect(&id, false).await.unwrap();
    world.reopen().await;
    let after = world.engine.inspect(&id, false).await.unwrap();
    assert_eq!((after.state.pid, after.state.status.as_str()), (before.state.pid, "running"));
    assert_eq!(after.state.started_at, before.state.started_at);
    assert_eq!(after.network_settings.ip_address, before.network_settings.ip_address);
    let options = LogsOptions { stdout: true, follow: true, ..Default::default() };
    let mut logs = world.engine.logs(&id, options).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"hello\n");
    world.engine.stop(&id, StopOptions::default()).await.unwrap();
    assert_eq!(world.engine.state(&id).unwrap().exit_code, 6);
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"bye\n");
    assert!(logs.next().await.unwrap().is_none());
}

async fn an_end_while_nobody_looked_is_taken_in(mut world: World) {
    // Both wait at a pipe until the engine is away.
    let gate = world.root.join("gate");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &gate, kind, mode, 0).unwrap();
    let binds = || Some(vec![format!("{}:/gate", gate.display())]);
    let id = world.create("cat /gate; exit 9", HostConfig { binds: binds(), ..plain() }).await;
    let host = HostConfig { binds: binds(), auto_remove: true, ..plain() };
    let gone = world.create("cat /gate; exit 1", host).await;
    world.engine.start(&id).await.unwrap();
    world.engine.start(&gone).await.unwrap();
    let pids = [pid_of(&world, &id), pid_of(&world, &gone)];
    world.engine.shutdown().await;
    let open = move || std::fs::OpenOptions::new().write(true).open(gate).unwrap();
    // Opening waits for a reader, and `cat` goes on until the last writer closes: held until both are through.
    let gate = tokio::task::spawn_blocking(open).await.unwrap();
    for pid in pids {
        until_reading(pid).await;
    }
    drop(gate);
    for pid in pids {
        until_gone(pid).await;
    }
    world.reopen().await;
    world.until(&id, |state| state.status == Status::Exited).await;
    let state = world.engine.inspect(&id, false).await.unwrap().state;
    assert_eq!((state.exit_code, state.error.as_str()), (9, ""));
    if let Ok(waiter) = world.engine.wait(&gone, WaitCondition::Removed).await {
        waiter.finished().await;
    }
    assert!(world.engine.state(&gone).is_none());
}

async fn a_shim_that_dies_takes_its_container_along(world: World) {
    let id = world.create("sleep 60 & sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let pid = pid_of(&world, &id);
    let waiter = world.engine.wait(&id, WaitCondition::NextExit).await.unwrap();
    kill(parent_of(pid));
    assert_eq!(waiter.finished().await.status_code, 137);
    let state = world.engine.inspect(&id, false).await.unwrap().state;
    assert_eq!((state.status.as_str(), state.error.as_str()), ("exited", "shim died"));
    assert!(!is_alive(pid));
}

async fn a_shim_that_died_while_nobody_looked_is_noticed(mut world: World) {
    let id = world.create("sleep 60 & sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let pid = pid_of(&world, &id);
    world.engine.shutdown().await;
    kill(parent_of(pid));
    world.reopen().await;
    world.until(&id, |state| state.status == Status::Exited).await;
    let state = world.engine.inspect(&id, false).await.unwrap().state;
    assert_eq!((state.exit_code, state.error.as_str()), (137, "shim died"));
}

async fn policies_apply_to_what_ended_meanwhile(mut world: World) {
    let with = |name: &str| HostConfig {
        restart_policy: RestartPolicy { name: name.into(), ..Default::default() },
        ..plain()
    };
    let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let kept = world.create(script, with("unless-stopped")).await;
    let stopped = world.create(script, with("unless-stopped")).await;
    let always = world.create(script, with("always")).await;
    for id in [&kept, &stopped, &always] {
        world.engine.start(id).await.unwrap();
    }
    for id in [&stopped, &always] {
        world.engine.stop(id, StopOptions::default()).await.unwrap();
    }
    let pid = pid_of(&world, &kept);
    world.engine.shutdown().await;
    // The machine goes down: processes and everything in the exec root with them.
    kill(parent_of(pid));
    until_gone(pid).await;
    std::fs::remove_dir_all(world.root.join("exec/containers")).unwrap();
    world.reopen().await;
    world.until(&kept, |state| state.status == Status::Running).await;
    world.until(&always, |state| state.status == Status::Running).await;
    assert_eq!(world.engine.state(&stopped).unwrap().status, Status::Exited);
}

async fn what_nobody_knows_is_swept(mut world: World) {
    let id = world.create("sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let pid = pid_of(&world, &id);
    world.engine.shutdown().await;
    // As if the record had never been written.
    let unknown = "f".repeat(64);
    std::fs::create_dir_all(world.root.join(format!("data/containers/{unknown}/overlay/upper"))).unwrap();
    let volume = world.root.join("data/volumes").join("e".repeat(64));
    std::fs::create_dir_all(volume.join("_data")).unwrap();
    std::fs::write(volume.join("unfinished"), "").unwrap();
    let foreign = world.root.join("data/volumes/precious/_data");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::remove_file(world.root.join("data/engine.redb")).unwrap();
    world.reopen().await;
    assert!(world.engine.states().is_empty());
    while is_alive(pid) || world.root.join(format!("data/containers/{unknown}")).exists() {
        tokio::task::yield_now().await;
    }
    assert!(!volume.exists() && foreign.exists());
}

async fn a_detached_exec_goes_on(mut world: World) {
    let id = world.create("sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let exec = |words: &[&str]| ExecConfig {
        cmd: words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into(),
        attach_stdout: true,
        ..Default::default()
    };
    let detached = world.engine.exec_create(&id, exec(&["sleep", "50"])).await.unwrap().id;
    let options = ExecStartOptions { detach: true, ..Default::default() };
    world.engine.exec_start(&detached, options).await.unwrap();
    let attached = world.engine.exec_create(&id, exec(&["sleep", "40"])).await.unwrap().id;
    world.engine.exec_start(&attached, ExecStartOptions::default()).await.unwrap();
    let pid = i32::try_from(world.engine.exec_inspect(&attached).await.unwrap().pid).unwrap();
    world.reopen().await;
    until_gone(pid).await;
    while world.engine.exec_inspect(&detached).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(world.engine.exec_inspect(&detached).await.unwrap().running);
    assert!(world.engine.exec_inspect(&attached).await.is_err());
}

async fn a_stop_under_way_does_not_hold_the_engine_and_is_finished_by_the_next(mut world: World) {
    let script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done";
    let policy = RestartPolicy { name: "always".into(), ..Default::default() };
    let id = world.create(script, HostConfig { restart_policy: policy, ..plain() }).await;
    world.engine.start(&id).await.unwrap();
    let options = LogsOptions { stdout: true, follow: true, ..Default::default() };
    let mut logs = world.engine.logs(&id, options).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"ready\n");
    let (engine, stopped) = (world.engine.clone(), id.clone());
    let options = StopOptions { timeout: Some(2), ..Default::default() };
    let stop = tokio::spawn(async move { engine.stop(&stopped, options).await });
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"heard\n");
    drop(logs);
    let pid = pid_of(&world, &id);
    let began = std::time::Instant::now();
    world.engine.shutdown().await;
    assert!(began.elapsed() < std::time::Duration::from_millis(300), "{:?}", began.elapsed());
    assert!(matches!(stop.await.unwrap(), Err(engine::EngineError::ShuttingDown)));
    assert!(is_alive(pid));
    world.reopen().await;
    world.until(&id, |state| state.status == Status::Exited).await;
    assert_eq!(world.engine.state(&id).unwrap().exit_code, 137);
    // Another start is another run: nothing of the stop is left.
    world.engine.start(&id).await.unwrap();
    world.reopen().await;
    assert_eq!(world.engine.state(&id).unwrap().status, Status::Running);
}

async fn a_shared_parent_of_cgroups_is_left_alone(world: World) {
    // As if somebody else had made it: it is there before the first container.
    let groups = runtime::cgroup::missing_groups(&world.parent).unwrap();
    groups.iter().for_each(|group| std::fs::create_dir(group).unwrap());
    let (code, _) = world.run("true", plain()).await;
    assert_eq!(code, 0);
    world.engine.shutdown().await;
    assert!(groups.iter().all(|group| group.is_dir()), "a group of somebody else is gone");
    groups.iter().for_each(|group| std::fs::remove_dir(group).unwrap());
}

async fn a_shim_that_does_not_answer_costs_its_container_nothing(mut world: World) {
    let script = "trap 'ip addr show eth0 && exit 6' TERM; while :; do sleep 0.05; done";
    let silent = world.create(script, HostConfig::default()).await;
    let policy = RestartPolicy { name: "always".into(), ..Default::default() };
    let other = world.create("sleep 60", HostConfig { restart_policy: policy, ..Default::default() }).await;
    for id in [&silent, &other] {
        world.engine.start(id).await.unwrap();
    }
    let at_once = StopOptions { timeout: Some(0), ..Default::default() };
    world.engine.stop(&other, at_once).await.unwrap();
    let (pid, began) = (pid_of(&world, &silent), world.engine.state(&silent).unwrap().started_at);
    let shim = rustix::process::Pid::from_raw(parent_of(pid)).unwrap();
    world.away().await;
    rustix::process::kill_process(shim, rustix::process::Signal::STOP).unwrap();
    world.back().await;
    // It is started while the other one's shim is silent, and must not get its address.
    world.until(&other, |state| state.status == Status::Running).await;
    let address =
        async |id: &str| world.engine.inspect(id, false).await.unwrap().network_settings.ip_address.clone();
    assert_ne!(address(&silent).await, address(&other).await);
    assert_eq!(world.engine.state(&silent).unwrap().status, Status::Running);
    let stop = world.engine.stop(&silent, StopOptions::default());
    let go_on = async { rustix::process::kill_process(shim, rustix::process::Signal::CONT).unwrap() };
    let (stopped, ()) = tokio::join!(stop, go_on);
    stopped.unwrap();
    // Its link was still there, and it was not started anew.
    let state = world.engine.state(&silent).unwrap();
    assert_eq!((state.exit_code, state.started_at), (6, began));
}

async fn a_freezer_says_whether_a_container_is_paused(mut world: World) {
    let id = world.create("sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let freeze = |world: &World, is_frozen: bool| {
        runtime::cgroup::Cgroup::open(&world.parent, &id).unwrap().freeze(is_frozen).unwrap();
    };
    world.away().await;
    freeze(&world, true);
    world.back().await;
    world.until(&id, |state| state.status == Status::Paused).await;
    world.away().await;
    freeze(&world, false);
    world.back().await;
    world.until(&id, |state| state.status == Status::Running).await;
    world.engine.kill(&id, None).await.unwrap();
}

async fn fifty_containers_are_adopted_in_a_moment(mut world: World) {
    const COUNT: usize = 50;
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..COUNT {
        let engine = world.engine.clone();
        set.spawn(async move {
            let config = shell("sleep 60");
            let request = ContainerCreateRequest { config, ..Default::default() };
            let id = engine.create(request).await.unwrap().id;
            engine.start(&id).await.unwrap();
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    let pids = |world: &World| -> Vec<Option<i32>> { world.engine.states().iter().map(|s| s.pid).collect() };
    let before = pids(&world);
    let began = std::time::Instant::now();
    world.reopen().await;
    eprintln!("      {COUNT} containers adopted: {:.2?} with closing and opening", began.elapsed());
    assert_eq!(pids(&world), before);
    assert!(before.iter().all(Option::is_some));
    let id = world.engine.states()[0].id.clone();
    let options = AttachOptions { stdin: false, stdout: true, stderr: true };
    let mut attached = world.engine.attach(&id, options).await.unwrap();
    world.engine.kill(&id, None).await.unwrap();
    assert!(attached.output.next().await.is_none());
}
