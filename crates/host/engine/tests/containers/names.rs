//! Containers that find each other by name, on a network that somebody made.

use docker::{ContainerCreateRequest, HostConfig, NetworkCreateRequest};

use crate::world::{World, shell};

crate::cases![
    containers_of_a_network_find_each_other_also_after_a_restart_of_the_daemon,
    a_running_container_that_is_connected_finds_others,
];

const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";

async fn front(world: &World) {
    let request = NetworkCreateRequest { name: "front".into(), ..Default::default() };
    world.engine.network_create(request).await.unwrap();
}

fn on(network: &str) -> HostConfig {
    HostConfig { network_mode: network.into(), ..Default::default() }
}

async fn start_web(world: &World) -> String {
    let (config, host_config) = (shell(FOREVER), on("front"));
    let id = world
        .create_with(ContainerCreateRequest { name: "web".into(), config, host_config, ..Default::default() })
        .await;
    world.engine.start(&id).await.unwrap();
    id
}

async fn containers_of_a_network_find_each_other_also_after_a_restart_of_the_daemon(mut world: World) {
    front(&world).await;
    let web = start_web(&world).await;
    let script = "head -1 /etc/resolv.conf; busybox ping -c 1 -W 5 web && busybox ping -c 1 -W 5 WEB.front && busybox ping -c 1 -W 5 ID && ! busybox ping -c 1 nobody"
        .replace("ID", &web[..12]);
    for _ in 0..2 {
        let (code, output) = world.run(&script, on("front")).await;
        assert_eq!(code, 0, "{output}");
        assert!(output.starts_with("nameserver 127.0.0.11\n"), "{output}");
        world.reopen().await;
    }
    world.engine.rename(&web, "www").await.unwrap();
    let (code, output) =
        world.run("busybox ping -c 1 -W 5 www && ! busybox ping -c 1 -W 5 web", on("front")).await;
    assert_eq!(code, 0, "{output}");
    let (code, output) = world.run("cat /etc/resolv.conf; busybox ping -c 1 www", on("bridge")).await;
    assert!(code != 0 && !output.contains("127.0.0.11"), "the default bridge has no names: {output}");
}

async fn a_running_container_that_is_connected_finds_others(world: World) {
    front(&world).await;
    start_web(&world).await;
    let script = "until busybox ping -c 1 -W 1 web; do sleep 0.1; done; head -1 /etc/resolv.conf; exit 7";
    let id = world.create(script, on("bridge")).await;
    world.engine.start(&id).await.unwrap();
    world.engine.network_connect("front", &id, None).await.unwrap();
    world.until(&id, |state| state.exit_code == 7).await;
}
