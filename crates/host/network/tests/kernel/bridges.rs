//! Bridges of one's own: who reaches whom, what survives, containers that come and go while they run.

use std::io::ErrorKind;

use network::{
    AskedSubnet, AttachRequest, Attachment, ConnectRequest, NetworkJoin, NetworkSpec, SandboxMode,
};

use crate::world::{MACHINE, OUTSIDE, Space, World, ip_of, tcp};

fn subnet(of: &str) -> Vec<AskedSubnet> {
    vec![AskedSubnet { subnet: of.to_owned(), ..AskedSubnet::default() }]
}

fn option(spec: &mut NetworkSpec, key: &str, value: &str) {
    spec.options.insert(format!("com.docker.network.bridge.{key}"), value.to_owned());
}

/// A process in a namespace, for what enters it by a process id; it ends with the test.
struct Sleeper {
    child: std::process::Child,
    pid: i32,
}

fn sleeper(space: &Space) -> Sleeper {
    let child = space.run(|| std::process::Command::new("sleep").arg("100").spawn().unwrap());
    let pid = i32::try_from(child.id()).unwrap();
    Sleeper { child, pid }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(world: &World, name: &str, pid: i32, join: NetworkJoin) -> Result<Attachment, String> {
    let request = ConnectRequest { container_id: name.to_owned(), pid, join, ports: Vec::new() };
    world.runtime.block_on(world.network().connect(request)).map_err(|error| error.to_string())
}

#[test]
fn networks_are_kept_apart_and_reach_the_outside() {
    let world = World::new();
    world.create("red", |_| {});
    world.create("blue", |_| {});
    world.outside.command(&format!("ip route add 172.18.0.0/15 via {MACHINE}"));
    let (red, red_has) = world.container_on("red1", &["red"], &[tcp(8080, 80)]);
    let (red2, _) = world.container_on("red2", &["red"], &[]);
    let (blue, blue_has) = world.container_on("blue1", &["blue"], &[]);
    let (plain, _) = world.container("plain", &[]);
    red.serve_tcp(80, "red");
    red.serve_tcp(81, "red unpublished");
    blue.serve_tcp(81, "blue");
    world.outside.serve_tcp(80, "outside");
    let at = |has: &Attachment, port: u16| format!("{}:{port}", ip_of(has));
    assert!(red2.ask(&at(&red_has, 81)).is_ok());
    assert!(world.machine.ask(&at(&red_has, 81)).is_ok());
    for (from, to) in [(&blue, &red_has), (&plain, &red_has), (&red, &blue_has), (&plain, &blue_has)] {
        assert_eq!(from.ask(&at(to, 81)), Err(ErrorKind::TimedOut));
    }
    assert_eq!(world.outside.ask(&at(&red_has, 81)).unwrap_err(), ErrorKind::TimedOut);
    for from in [&red, &blue, &plain] {
        assert_eq!(from.ask(&format!("{OUTSIDE}:80")), Ok(format!("outside {MACHINE}")));
        // What is published is published for everybody.
        assert!(from.ask(&format!("{MACHINE}:8080")).is_ok());
    }
}

#[test]
fn an_internal_network_has_no_way_in_or_out() {
    let world = World::new();
    world.create("closed", |spec| spec.is_internal = true);
    let (one, one_has) = world.container_on("one", &["closed"], &[tcp(8080, 80)]);
    let (two, _) = world.container_on("two", &["closed"], &[]);
    let (plain, _) = world.container("plain", &[]);
    one.serve_tcp(80, "one");
    world.outside.serve_tcp(80, "outside");
    let there = format!("{}:80", ip_of(&one_has));
    assert!(two.ask(&there).is_ok());
    assert!(plain.ask(&there).is_err());
    assert!(world.outside.ask(&there).is_err());
    assert_eq!(one_has.ports, [], "nothing is published where nothing leads");
    assert_eq!(one_has.endpoints[0].addresses[0].gateway, None);
    // Not even for a container that knows the way.
    let gateway = std::net::Ipv4Addr::from_bits(ip_of(&one_has).to_bits() & 0xffff_0000 | 1);
    one.command(&format!("ip route add default via {gateway}"));
    assert_eq!(one.ask(&format!("{OUTSIDE}:80")), Err(ErrorKind::TimedOut));
}

#[test]
fn containers_without_icc_reach_the_outside_and_what_is_published_but_not_each_other() {
    let world = World::new();
    let id = world.runtime.block_on(world.network().ensure_gateway_bridge()).unwrap();
    assert_eq!(
        world.runtime.block_on(world.network().ensure_gateway_bridge()).unwrap(),
        id,
        "it is made once"
    );
    let (one, one_has) = world.container_on("one", &["docker_gwbridge"], &[tcp(8080, 80)]);
    let (two, _) = world.container_on("two", &["docker_gwbridge"], &[]);
    one.serve_tcp(80, "one");
    one.serve_tcp(81, "unpublished");
    world.outside.serve_tcp(80, "outside");
    assert!(two.ask(&format!("{}:81", ip_of(&one_has))).is_err());
    assert!(world.machine.ask(&format!("{}:81", ip_of(&one_has))).is_ok());
    assert_eq!(two.ask(&format!("{OUTSIDE}:80")), Ok(format!("outside {MACHINE}")));
    let (plain, _) = world.container("plain", &[]);
    assert!(plain.ask(&format!("{MACHINE}:8080")).is_ok());
    assert_eq!(world.outside.ask(&format!("{MACHINE}:8080")), Ok(format!("one {OUTSIDE}")));
}

#[test]
fn networks_are_the_same_after_a_kill_and_their_bridges_come_back() {
    let mut world = World::new();
    let id = world.create("red", |spec| {
        spec.subnets = vec![AskedSubnet {
            subnet: "10.7.0.0/24".into(),
            range: "10.7.0.128/25".into(),
            gateway: "10.7.0.9".into(),
            reserved: [("router".to_owned(), "10.7.0.128".to_owned())].into(),
        }];
        spec.labels.insert("team".into(), "red".into());
        option(spec, "name", "mybridge");
        option(spec, "host_binding_ipv4", "127.0.0.1");
    });
    let (one, one_has) = world.container_on("one", &["red"], &[tcp(8080, 80)]);
    assert_eq!(ip_of(&one_has).to_string(), "10.7.0.129", "from the range, but not what is reserved");
    assert_eq!(one_has.ports[0].host_ip.to_string(), "127.0.0.1");
    let before = world.runtime.block_on(world.network().inspect("red")).unwrap();
    world.restart();
    world.runtime.block_on(world.network().adopt("one", "one", &one_has));
    world.machine.command("ip link del mybridge");
    world.runtime.block_on(world.network().release_hold()).unwrap();
    let after = world.runtime.block_on(world.network().inspect(&id[..8])).unwrap();
    assert_eq!(after, before);
    one.serve_tcp(80, "one");
    world.eventually("its published port works again", || world.machine.ask("127.0.0.1:8080").is_ok());
    let (_, next) = world.container_on("two", &["red"], &[]);
    assert_eq!(ip_of(&next).to_string(), "10.7.0.130", "the address of the running container is taken");
    // With its containers, the network goes; with the network, its bridge.
    let refused = world.runtime.block_on(world.network().remove("red")).unwrap_err();
    let text = format!("error while removing network: network red id {id} has active endpoints");
    assert_eq!(refused.to_string(), text);
    for name in ["one", "two"] {
        world.runtime.block_on(world.network().release(name));
    }
    world.runtime.block_on(world.network().remove("red")).unwrap();
    assert!(!world.machine.command("ip -o link").contains("mybridge"));
    assert!(!world.machine.command("nft list ruleset").contains("mybridge"));
    world.restart();
    assert_eq!(world.runtime.block_on(world.network().inspect("red")), None);
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let world = World::new();
    world.create("a", |spec| spec.subnets = subnet("10.8.0.0/24"));
    world.create("b", |spec| spec.subnets = subnet("10.9.0.0/24"));
    world.create("closed", |spec| spec.is_internal = true);
    let (one, first) = world.container_on("one", &["b"], &[tcp(8080, 80)]);
    let (other, other_has) = world.container_on("other", &["a"], &[]);
    one.serve_tcp(80, "one");
    other.serve_tcp(80, "other");
    let process = sleeper(&one);
    let pid = process.pid;
    let there = format!("{}:80", ip_of(&other_has));
    let published = format!("{MACHINE}:8080");
    assert!(one.ask(&there).is_err());

    let join = NetworkJoin { ip: Some([10, 8, 0, 77].into()), ..NetworkJoin::plain("a") };
    let two = connect(&world, "one", pid, join.clone()).unwrap();
    assert!(two.interfaces().map(|interface| interface.name.as_str()).eq(["eth0", "eth1"]));
    world.eventually("the new link carries", || one.ask(&there).is_ok());
    // Of networks that are alike, the alphabet's first leads out, and published ports come in there.
    assert!(one.command("ip route").contains("default via 10.8.0.1 dev eth1"));
    world.eventually("the port follows", || world.outside.ask(&published) == Ok(format!("one {OUTSIDE}")));
    assert_eq!(
        connect(&world, "one", pid, join.clone()).unwrap_err(),
        "endpoint with name one already exists in network a"
    );
    let taken =
        connect(&world, "other", 1, NetworkJoin { ip: Some(ip_of(&first)), ..NetworkJoin::plain("b") });
    assert!(taken.unwrap_err().contains("Address already in use"));

    let closed = connect(&world, "one", pid, NetworkJoin::plain("closed")).unwrap();
    assert_eq!(closed.way_out().unwrap().network_name, "a");
    let left = world.runtime.block_on(world.network().disconnect("one", "a", pid)).unwrap();
    assert_eq!(left.way_out().unwrap().network_name, "b");
    assert!(one.command("ip route").contains("default via 10.9.0.1 dev eth0"));
    assert!(!one.command("ip -o link").contains("eth1"));
    assert!(one.ask(&there).is_err());
    world.eventually("the port follows", || world.outside.ask(&published) == Ok(format!("one {OUTSIDE}")));
    let left = world.runtime.block_on(world.network().disconnect("one", "b", pid)).unwrap();
    assert_eq!((left.endpoints.len(), left.ports.len()), (1, 0));
    assert!(!one.command("ip route").contains("default"));
    assert_eq!(world.outside.ask(&published), Err(ErrorKind::ConnectionRefused));
    // What it was asked to do without is somebody else's.
    let again = NetworkJoin { ip: Some(ip_of(&first)), ..NetworkJoin::plain("b") };
    let other_process = sleeper(&other);
    assert_eq!(connect(&world, "other", other_process.pid, again).map(|has| has.endpoints.len()), Ok(2));
}

#[test]
fn a_connection_that_fails_leaves_everything_as_it_was() {
    let world = World::new();
    world.create("a", |spec| spec.subnets = subnet("10.8.0.0/24"));
    let (one, _) = world.container("one", &[tcp(8080, 80)]);
    one.serve_tcp(80, "one");
    let before = world.runtime.block_on(world.network().inspect("bridge")).unwrap();
    // A process that is not there.
    assert!(connect(&world, "one", i32::MAX, NetworkJoin::plain("a")).is_err());
    assert_eq!(world.runtime.block_on(world.network().inspect("bridge")).unwrap(), before);
    assert!(world.runtime.block_on(world.network().inspect("a")).unwrap().containers.is_empty());
    world.eventually("the port is where it was", || world.outside.ask(&format!("{MACHINE}:8080")).is_ok());
    world.runtime.block_on(world.network().remove("a")).unwrap();
}

#[test]
fn a_network_with_ipv6_gives_addresses_of_both_families() {
    let world = World::new();
    world.create("six", |spec| {
        spec.has_ipv6 = true;
        spec.subnets = [subnet("10.6.0.0/24"), subnet("fd00:6::/64")].concat();
    });
    let (one, has) = world.container_on("one", &["six"], &[]);
    let (two, _) = world.container_on("two", &["six"], &[]);
    let ips: Vec<_> = has.endpoints[0].addresses.iter().map(|address| address.ip.to_string()).collect();
    assert_eq!(ips, ["10.6.0.2", "fd00:6::2"]);
    let ping =
        |from: &Space, to: &str| from.command(&format!("ping -6 -c 1 -W 2 {to}")).contains(" 0% packet loss");
    assert!(ping(&two, "fd00:6::2"), "{}", two.command("ip -6 route"));
    assert!(ping(&one, "fd00:6::1"));
    assert!(world.machine.command("nft list ruleset").contains("ip6 saddr fd00:6::/64 oifname != "));
    assert!(one.command("ip -6 route").contains("default via fd00:6::1"));
}

#[test]
fn a_container_on_the_wire_of_a_link_is_a_neighbour_of_the_machine_s_neighbours() {
    let world = World::new();
    let wire = |spec: &mut NetworkSpec| {
        spec.driver = "macvlan".into();
        spec.options.insert("parent".into(), "up0".into());
        spec.subnets =
            vec![AskedSubnet { range: "192.0.2.64/26".into(), ..subnet("192.0.2.0/24").remove(0) }];
    };
    world.create("wire", wire);
    let (one, _) = world.container("one", &[]);
    let process = sleeper(&one);
    let has = connect(&world, "one", process.pid, NetworkJoin::plain("wire")).unwrap();
    assert_eq!(has.endpoint("wire").unwrap().addresses[0].ip.to_string(), "192.0.2.64");
    one.serve_tcp(80, "one");
    world.eventually("the neighbour reaches it", || {
        world.outside.ask("192.0.2.64:80") == Ok(format!("one {OUTSIDE}"))
    });
    let mut other = NetworkSpec { name: "other".into(), ..NetworkSpec::default() };
    wire(&mut other);
    other.subnets = subnet("10.8.0.0/24");
    let refused = world.runtime.block_on(world.network().create(other)).unwrap_err().to_string();
    assert!(refused.ends_with("is already using parent interface up0"), "{refused}");
    world.runtime.block_on(world.network().disconnect("one", "wire", process.pid)).unwrap();
    assert!(world.outside.ask("192.0.2.64:80").is_err());
    world.runtime.block_on(world.network().remove("wire")).unwrap();
    assert!(world.machine.command("ip -o link").contains("up0"));
}

#[test]
fn containers_are_found_by_their_names_aliases_and_short_ids() {
    let world = World::new();
    world.create("a", |_| {});
    let container_id = "0123456789abcdef".repeat(4);
    let request = AttachRequest {
        container_id: container_id.clone(),
        container_name: "web".into(),
        hostname: "0123456789ab".into(),
        mode: SandboxMode::Own,
        networks: vec![
            NetworkJoin { aliases: vec!["www".into(), "web".into()], ..NetworkJoin::plain("a") },
            NetworkJoin::plain("bridge"),
        ],
        ports: Vec::new(),
    };
    let has = world.runtime.block_on(world.network().attach(request)).unwrap();
    let names = || world.runtime.block_on(world.network().names("a"));
    assert_eq!(names()[0].names, ["web", "www", "0123456789ab"]);
    assert_eq!(names()[0].addresses, [has.endpoints[0].addresses[0].ip]);
    world.runtime.block_on(world.network().rename(&container_id, "shop"));
    assert_eq!(names()[0].names, ["shop", "www", "web", "0123456789ab"]);
    assert_eq!(world.runtime.block_on(world.network().names("bridge")), []);
}

#[test]
fn networks_are_refused_in_docker_s_words() {
    let world = World::new();
    world.create("a", |spec| {
        spec.subnets = subnet("10.8.0.0/24");
        option(spec, "name", "br-a");
    });
    let refused = |change: &dyn Fn(&mut NetworkSpec)| {
        let mut spec = NetworkSpec { name: "b".into(), ..NetworkSpec::default() };
        change(&mut spec);
        world.runtime.block_on(world.network().create(spec)).unwrap_err().to_string()
    };
    assert_eq!(refused(&|spec| spec.name = "a".into()), "network with name a already exists");
    assert_eq!(
        refused(&|spec| spec.name = "host".into()),
        "operation is not permitted on predefined host network "
    );
    assert_eq!(
        refused(&|spec| spec.driver = "host".into()),
        "only one instance of \"host\" network is allowed"
    );
    assert_eq!(refused(&|spec| spec.driver = "weave".into()), "plugin \"weave\" not found");
    assert_eq!(
        refused(&|spec| spec.subnets = subnet("10.8.0.0/25")),
        "invalid pool request: Pool overlaps with other one on this address space"
    );
    assert!(refused(&|spec| option(spec, "name", "br-a")).ends_with("networks have same bridge name"));
    assert_eq!(refused(&|spec| option(spec, "name", "up0")), "link `up0` exists and is not a bridge");
    let remove = |name: &str| world.runtime.block_on(world.network().remove(name)).unwrap_err().to_string();
    assert_eq!(remove("bridge"), "bridge is a pre-defined network and cannot be removed");
    assert_eq!(remove("nope"), "network nope not found");
    assert_eq!(world.runtime.block_on(world.network().list()).len(), 4, "nothing was left half made");
}
