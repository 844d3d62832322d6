//! A container's life: created, started, waited for, stopped, removed.

use docker::{ContainerCreateRequest, Filters, HostConfig, RestartPolicy};
use engine::{
    AttachOptions, EngineError, EventQuery, ListOptions, LogsOptions, RemoveOptions, Status, StopOptions,
    WaitCondition,
};

use crate::world::{World, plain, shell};

crate::cases![
    a_container_runs_and_its_end_is_known,
    open_files_are_limited_as_the_engine_was_told,
    input_reaches_the_container_and_its_end_too,
    a_command_that_cannot_be_run_has_its_exit_code,
    stop_asks_first_and_kills_later,
    a_signal_that_ends_it_shows_in_the_exit_code,
    a_name_belongs_to_one_container,
    a_failing_container_is_restarted_as_often_as_its_policy_says,
    a_container_removes_itself,
    a_running_container_is_removed_by_force_only,
    events_tell_a_containers_life,
    a_paused_container_stands_still,
    lists_are_filtered,
    a_published_port_answers,
    many_containers_start_at_once,
];

async fn a_container_runs_and_its_end_is_known(world: World) {
    let id = world.create("echo out; echo err >&2; exit 3", plain()).await;
    assert_eq!(world.engine.inspect(&id, false).await.unwrap().state.status, "created");
    let (code, output) = world.run_created(&id).await;
    assert_eq!(code, 3);
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
    let shown = world.engine.inspect(&id[..12], true).await.unwrap();
    assert_eq!((shown.state.status.as_str(), shown.state.exit_code, shown.state.pid), ("exited", 3, 0));
    assert!(shown.state.finished_at > shown.state.started_at, "{:?}", shown.state);
    assert_eq!((shown.path.as_str(), shown.args.len()), ("sh", 2));
    assert!(shown.config.env.contains(&"FROM_IMAGE=yes".to_owned()));
    let options = LogsOptions { stdout: true, follow: true, ..Default::default() };
    let mut logs = world.engine.logs(&id, options).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"out\n");
    assert!(logs.next().await.unwrap().is_none());
    world.engine.remove(&id, RemoveOptions::default()).await.unwrap();
    let gone = world.engine.inspect(&id, false).await.unwrap_err();
    assert_eq!(gone.to_string(), format!("No such container: {id}"));
}

async fn input_reaches_the_container_and_its_end_too(world: World) {
    let mut config = shell("cat; echo done");
    config.open_stdin = true;
    config.stdin_once = true;
    let id = world
        .create_with(ContainerCreateRequest { config, host_config: plain(), ..Default::default() })
        .await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: false };
    let mut attached = world.engine.attach(&id, options).await.unwrap();
    world.engine.start(&id).await.unwrap();
    let mut input = attached.input.take().unwrap();
    input.write(b"one\n").await.unwrap();
    input.write(b"two\n").await.unwrap();
    input.close().await.unwrap();
    let mut output = Vec::new();
    while let Some((_, bytes)) = attached.output.next().await {
        output.extend_from_slice(&bytes);
    }
    assert_eq!(String::from_utf8_lossy(&output), "one\ntwo\ndone\n");
}

async fn a_command_that_cannot_be_run_has_its_exit_code(world: World) {
    for (command, code, text) in [
        ("nonesuch", 127, "exec: \"nonesuch\": executable file not found in $PATH"),
        ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
    ] {
        let mut config = shell("");
        config.cmd = Some(vec![command.to_owned()].into());
        let id = world
            .create_with(ContainerCreateRequest { config, host_config: plain(), ..Default::default() })
            .await;
        let error = world.engine.start(&id).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let state = world.engine.inspect(&id, false).await.unwrap().state;
        assert_eq!((state.exit_code, state.status.as_str()), (code, "created"), "{command}");
        assert!(state.error.contains(text), "{}", state.error);
    }
}

async fn stop_asks_first_and_kills_later(world: World) {
    let polite = world.create("trap 'exit 7' TERM; while :; do sleep 0.05; done", plain()).await;
    world.engine.start(&polite).await.unwrap();
    world.engine.stop(&polite, StopOptions::default()).await.unwrap();
    assert_eq!(world.engine.state(&polite).unwrap().exit_code, 7);
    let again = world.engine.stop(&polite, StopOptions::default()).await.unwrap_err();
    assert!(matches!(again, EngineError::NotModified), "{again}");
    let stubborn = world.create("trap '' TERM; while :; do sleep 0.05; done", plain()).await;
    world.engine.start(&stubborn).await.unwrap();
    let options = StopOptions { timeout: Some(0), ..Default::default() };
    world.engine.stop(&stubborn, options).await.unwrap();
    assert_eq!(world.engine.state(&stubborn).unwrap().exit_code, 137);
}

async fn a_signal_that_ends_it_shows_in_the_exit_code(world: World) {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SIGUSR1", 138)] {
        let host = HostConfig { init: Some(true), ..plain() };
        let id = world.create("exec sleep 60", host).await;
        let waiter = world.engine.wait(&id, WaitCondition::NextExit).await.unwrap();
        world.engine.start(&id).await.unwrap();
        world.engine.kill(&id, Some(signal)).await.unwrap();
        assert_eq!(waiter.finished().await.status_code, code, "{signal}");
    }
    let id = world.create("true", plain()).await;
    let error = world.engine.kill(&id, None).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot kill container: {id}: container {id} is not running"));
}

async fn a_name_belongs_to_one_container(world: World) {
    let request = |name: &str| ContainerCreateRequest {
        name: name.into(),
        config: shell("true"),
        host_config: plain(),
        ..Default::default()
    };
    let id = world.create_with(request("web")).await;
    let error = world.engine.create(request("/web")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    world.engine.rename("web", "shop").await.unwrap();
    assert_eq!(world.engine.inspect("/shop", false).await.unwrap().id, id);
    let other = world.create_with(request("web")).await;
    assert!(matches!(world.engine.rename(&other, "shop").await, Err(EngineError::NameInUse { .. })));
}

async fn a_failing_container_is_restarted_as_often_as_its_policy_says(world: World) {
    let restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 2 };
    let id = world.create("exit 5", HostConfig { restart_policy, ..plain() }).await;
    world.engine.start(&id).await.unwrap();
    world.until(&id, |state| state.status == Status::Exited).await;
    let shown = world.engine.inspect(&id, false).await.unwrap();
    assert_eq!((shown.restart_count, shown.state.exit_code), (2, 5));
    let restart_policy = RestartPolicy { name: "always".into(), ..Default::default() };
    let id = world.create("exit 0", HostConfig { restart_policy, ..plain() }).await;
    world.engine.start(&id).await.unwrap();
    world.until(&id, |state| state.status == Status::Restarting).await;
    // It may run again just now; then it is stopped as one that runs.
    world.engine.stop(&id, StopOptions::default()).await.unwrap();
    world.until(&id, |state| state.status == Status::Exited).await;
}

async fn a_container_removes_itself(world: World) {
    let id = world.create("exit 4", HostConfig { auto_remove: true, ..plain() }).await;
    let waiter = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    world.engine.start(&id).await.unwrap();
    assert_eq!(waiter.finished().await.status_code, 4);
    assert!(world.engine.state(&id).is_none());
}

async fn a_running_container_is_removed_by_force_only(world: World) {
    let request = ContainerCreateRequest {
        name: "busy".into(),
        config: shell("sleep 60"),
        host_config: plain(),
        ..Default::default()
    };
    let id = world.create_with(request).await;
    world.engine.start(&id).await.unwrap();
    let error = world.engine.remove(&id, RemoveOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot remove container \"/busy\": container is running: stop the container before removing or force remove"
    );
    world.engine.remove(&id, RemoveOptions { force: true, volumes: false }).await.unwrap();
    assert!(world.engine.state(&id).is_none());
    let removed = world.engine.images().remove("busybox", false).await;
    assert!(removed.is_ok(), "nobody uses the image any more: {removed:?}");
}

async fn events_tell_a_containers_life(world: World) {
    let mut filters = Filters::default();
    filters.add("type", "container");
    let mut events = world.engine.events(EventQuery { filters, ..Default::default() });
    let id = world.create("trap 'exit 0' TERM; while :; do sleep 0.05; done", plain()).await;
    world.engine.start(&id).await.unwrap();
    world.engine.stop(&id, StopOptions::default()).await.unwrap();
    world.engine.remove(&id, RemoveOptions::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("destroy") {
        let event = events.next().await.unwrap();
        assert_eq!((event.actor.id.as_str(), event.from.as_str()), (id.as_str(), "busybox"));
        if event.action == "die" {
            assert_eq!(event.actor.attributes["exitCode"], "0");
        }
        if event.action == "kill" {
            assert_eq!(event.actor.attributes["signal"], "15");
        }
        seen.push(event.action.clone());
    }
    assert_eq!(seen, ["create", "start", "kill", "die", "stop", "destroy"]);
}

async fn a_paused_container_stands_still(world: World) {
    let id = world.create("trap 'exit 0' TERM; while :; do sleep 0.05; done", plain()).await;
    world.engine.start(&id).await.unwrap();
    world.engine.pause(&id).await.unwrap();
    assert_eq!(world.engine.state(&id).unwrap().status, Status::Paused);
    assert!(world.engine.pause(&id).await.is_err());
    world.engine.unpause(&id).await.unwrap();
    world.engine.pause(&id).await.unwrap();
    // Stopping thaws it, so that it hears the signal.
    world.engine.stop(&id, StopOptions::default()).await.unwrap();
    assert_eq!(world.engine.state(&id).unwrap().exit_code, 0);
}

async fn lists_are_filtered(world: World) {
    let mut config = shell("sleep 60");
    config.labels.insert("tier".into(), "web".into());
    let request =
        ContainerCreateRequest { name: "one".into(), config, host_config: plain(), ..Default::default() };
    let one = world.create_with(request).await;
    let two = world.create("exit 2", plain()).await;
    world.engine.start(&one).await.unwrap();
    world.run_created(&two).await;
    let list = async |filter: &str, all: bool| -> Vec<String> {
        let filters = Filters::parse(filter).unwrap();
        let rows = world.engine.list(ListOptions { all, filters, ..Default::default() }).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(list("", false).await, [one.as_str()]);
    assert_eq!(list("", true).await, [two.as_str(), one.as_str()]);
    assert_eq!(list(r#"{"label":["tier=web"]}"#, true).await, [one.as_str()]);
    assert_eq!(list(r#"{"exited":["2"]}"#, false).await, [two.as_str()]);
    assert_eq!(list(r#"{"name":["^one$"]}"#, true).await, [one.as_str()]);
    assert_eq!(list(r#"{"ancestor":["busybox"],"status":["running"]}"#, true).await, [one.as_str()]);
    assert_eq!(list(&format!(r#"{{"since":["{one}"]}}"#), true).await, [two.as_str()]);
    let row =
        &world.engine.list(ListOptions { all: true, limit: Some(1), ..Default::default() }).await.unwrap();
    assert_eq!((row.len(), row[0].id.as_str(), row[0].command.as_str()), (1, two.as_str(), "sh -c 'exit 2'"));
    assert!(row[0].status.starts_with("Exited (2) "), "{}", row[0].status);
    let filters = Filters::parse(r#"{"colour":["red"]}"#).unwrap();
    let error = world.engine.list(ListOptions { filters, ..Default::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid filter 'colour'");
}

async fn a_published_port_answers(world: World) {
    let bindings = vec![docker::PortBinding { host_ip: String::new(), host_port: "18080".into() }];
    let host =
        HostConfig { port_bindings: [("8080/tcp".to_owned(), Some(bindings))].into(), ..Default::default() };
    let id =
        world.create("mkdir -p /w; echo from-the-hive > /w/index.html; httpd -f -p 8080 -h /w", host).await;
    world.engine.start(&id).await.unwrap();
    let answer = fetch("127.0.0.1:18080").await;
    assert!(answer.contains("from-the-hive"), "{answer}");
    let shown = world.engine.inspect(&id, false).await.unwrap();
    let address = shown.network_settings.ip_address.clone();
    assert!(!address.is_empty());
    let bound = shown.network_settings.ports["8080/tcp"].as_ref().unwrap();
    assert_eq!(bound[0].host_port, "18080");
    let (code, output) =
        world.run(&format!("wget -q -O - http://{address}:8080/"), HostConfig::default()).await;
    assert_eq!((code, output.as_str()), (0, "from-the-hive\n"));
    let bindings = vec![docker::PortBinding { host_ip: String::new(), host_port: "18080".into() }];
    let host =
        HostConfig { port_bindings: [("81/tcp".to_owned(), Some(bindings))].into(), ..Default::default() };
    let second = world.create("true", host).await;
    let error = world.engine.start(&second).await.unwrap_err();
    let text = world.engine.inspect(&second, false).await.unwrap().state.error;
    assert!(text.contains("Bind for 0.0.0.0:18080 failed: port is already allocated"), "{error}: {text}");
}

/// Asks until the server inside listens.
async fn fetch(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
            let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
            let mut answer = String::new();
            if asked.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
                return answer;
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn many_containers_start_at_once(world: World) {
    const COUNT: usize = 60;
    let began = std::time::Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..COUNT {
        let engine = world.engine.clone();
        set.spawn(async move {
            let request = ContainerCreateRequest {
                config: shell("sleep 60"),
                host_config: HostConfig::default(),
                ..Default::default()
            };
            let id = engine.create(request).await.unwrap().id;
            engine.start(&id).await.unwrap();
            id
        });
    }
    let mut ids = Vec::new();
    while let Some(id) = set.join_next().await {
        ids.push(id.unwrap());
    }
    let rate = COUNT as f64 / began.elapsed().as_secs_f64();
    eprintln!("      {COUNT} containers created and started: {rate:.0} per second");
    assert_eq!(world.engine.counts().running, COUNT);
    let began = std::time::Instant::now();
    for id in ids {
        let engine = world.engine.clone();
        set.spawn(async move {
            engine.remove(&id, RemoveOptions { force: true, volumes: true }).await.unwrap();
            id
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    let rate = COUNT as f64 / began.elapsed().as_secs_f64();
    eprintln!("      {COUNT} containers removed by force: {rate:.0} per second");
    assert!(world.engine.states().is_empty());
}

async fn open_files_are_limited_as_the_engine_was_told(world: World) {
    let script = "ulimit -Sn; ulimit -Hn";
    assert_eq!(world.run(script, plain()).await, (0, "321\n654\n".to_owned()));
    let ulimits = vec![docker::Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    assert_eq!(world.run(script, HostConfig { ulimits, ..plain() }).await, (0, "100\n200\n".to_owned()));
}
