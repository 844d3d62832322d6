//! What a container sees of its limits and settings, and what is refused.

use docker::{ContainerCreateRequest, HostConfig, Ulimit};
use engine::{Engine, ErrorKind};

use crate::world::{World, plain, shell};

crate::cases![
    settings_reach_the_container,
    a_container_that_uses_too_much_memory_is_killed_and_marked,
    wrong_requests_are_refused_in_dockers_words,
    inspect_gives_back_what_was_asked_for,
];

async fn settings_reach_the_container(world: World) {
    let mut config = shell(
        "hostname; ulimit -n; cat /etc/hosts; grep ^Cap /proc/self/status; cat /proc/sys/kernel/msgmax",
    );
    config.hostname = "hive".into();
    let host_config = HostConfig {
        extra_hosts: Some(vec!["db:10.0.0.9".into()]),
        cap_drop: Some(vec!["ALL".to_owned()].into()),
        cap_add: Some(vec!["CHOWN".to_owned()].into()),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }],
        sysctls: Some([("kernel.msgmax".to_owned(), "12345".to_owned())].into()),
        ..Default::default()
    };
    let request = ContainerCreateRequest { config, host_config, ..Default::default() };
    let id = world.create_with(request).await;
    let (code, output) = world.run_created(&id).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("hive\n100\n127.0.0.1\tlocalhost\n"), "{output}");
    assert!(output.contains("10.0.0.9\tdb\n") && output.contains("\thive\n"), "{output}");
    assert!(output.contains("CapBnd:\t0000000000000001"), "{output}");
    assert!(output.ends_with("12345\n"), "{output}");
}

async fn a_container_that_uses_too_much_memory_is_killed_and_marked(world: World) {
    let host = HostConfig { memory: 16 << 20, memory_swap: 16 << 20, ..plain() };
    // The shell's variable grows without end.
    let id = world.create("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", host).await;
    let (code, _) = world.run_created(&id).await;
    let state = world.engine.inspect(&id, false).await.unwrap().state;
    assert!(state.oom_killed, "{state:?}");
    assert_eq!(code, 137);
}

async fn refused(engine: &Engine, request: ContainerCreateRequest) -> (ErrorKind, String) {
    let error = engine.create(request).await.unwrap_err();
    (error.kind(), error.to_string())
}

async fn wrong_requests_are_refused_in_dockers_words(world: World) {
    let request = || ContainerCreateRequest { config: shell("true"), ..Default::default() };
    let check = async |request: ContainerCreateRequest, kind: ErrorKind, text: &str| {
        assert_eq!(refused(&world.engine, request).await, (kind, text.to_owned()));
    };
    let mut no_image = request();
    no_image.config.image = "nonesuch:1".into();
    check(no_image, ErrorKind::NotFound, "No such image: nonesuch:1").await;
    let small = HostConfig { memory: 1 << 20, ..Default::default() };
    check(
        ContainerCreateRequest { host_config: small, ..request() },
        ErrorKind::InvalidParameter,
        "Minimum memory limit allowed is 6MB",
    )
    .await;
    check(
        ContainerCreateRequest { name: "-bad".into(), ..request() },
        ErrorKind::InvalidParameter,
        "Invalid container name (-bad), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    )
    .await;
    let mut empty = request();
    empty.config.cmd = None;
    world.import(&[], "empty:latest").await;
    empty.config.image = "empty".into();
    check(empty, ErrorKind::InvalidParameter, "no command specified").await;
    assert!(world.engine.states().is_empty());
}

async fn inspect_gives_back_what_was_asked_for(world: World) {
    let host_config = HostConfig {
        binds: Some(vec!["data:/d:ro".into()]),
        memory: 64 << 20,
        nano_cpus: 500_000_000,
        pids_limit: Some(50),
        dns: vec!["9.9.9.9".into()],
        ..plain()
    };
    let request = ContainerCreateRequest {
        config: shell("true"),
        host_config: host_config.clone(),
        ..Default::default()
    };
    let id = world.create_with(request).await;
    let shown = world.engine.inspect(&id, false).await.unwrap();
    let back = &shown.host_config;
    assert_eq!((&back.binds, back.memory, back.nano_cpus), (&host_config.binds, 64 << 20, 500_000_000));
    assert_eq!((back.pids_limit, back.memory_swap, back.shm_size), (Some(50), 128 << 20, 64 << 20));
    assert_eq!((back.restart_policy.name.as_str(), back.log_config.driver.as_str()), ("no", "json-file"));
    assert_eq!(shown.mounts[0].destination, "/d");
    assert!(!shown.mounts[0].rw && shown.mounts[0].name == "data");
    assert_eq!(shown.graph_driver.name, "overlay2");
    // What a client reads it can send back.
    let again = ContainerCreateRequest {
        config: shown.config.clone(),
        host_config: shown.host_config.clone(),
        ..Default::default()
    };
    let twin = world.create_with(again).await;
    let twin = world.engine.inspect(&twin, false).await.unwrap();
    assert_eq!(twin.host_config, shown.host_config);
}
