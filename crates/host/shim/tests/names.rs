//! The resolver in a container: names that change, upstreams that are slow, silent or dead, floods, garbage.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips and measures"
)]

#[path = "support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dns::{Client, Manner, Names, Said, Server, ask_by_tcp, config, inside, query};
use shim::client::{self, Adopted, Handle};
use shim::{ResolverConfig, ResolverSpec, Upstream};
use support::{Place, exited, is_alive, place, soon};

const EXTERNAL: &str = "192.0.2.1";
const FAILED: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// A container with a resolver that was told this.
async fn start(place: &Place, config: &ResolverConfig, script: &str) -> Handle {
    config.write(&place.shim_dir()).unwrap();
    let mut spec = place.spec(script);
    spec.resolver = Some(ResolverSpec::default());
    let handle = place.spawn(&spec).await;
    soon(handle.go()).await.unwrap();
    handle
}

#[tokio::test]
async fn names_follow_their_files_at_once() {
    let Some(place) = place() else { return };
    let (front, back) = (Names::new(place.dir.path(), "front"), Names::new(place.dir.path(), "back"));
    front.write(&[("web", "10.0.1.2")]);
    let handle = start(&place, &config(&[&front, &back], &[]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    assert_eq!(client.ask("db"), Said::code(NO_SUCH_NAME), "its network's file is not there yet");
    back.write(&[("db", "10.0.2.2")]);
    assert_eq!(client.ask("DB.back"), Said::is(&["10.0.2.2"]));
    for last in 3..60 {
        let address = format!("10.0.1.{last}");
        front.write(&[("web", &address)]);
        assert_eq!(client.ask("web"), Said::is(&[&address]), "the next answer after the rename");
    }
    front.write(&[]);
    assert_eq!(client.ask("web"), Said::code(NO_SUCH_NAME));
}

#[tokio::test]
async fn a_file_that_vanishes_or_is_damaged_leaves_what_was_known() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let handle = start(&place, &config(&[&names], &[]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    fs::remove_file(&names.path).unwrap();
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    for damaged in [&b""[..], b"skepname", b"something else altogether, longer than a header"] {
        names.write_bytes(damaged);
        assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    }
    names.write(&[("web", "10.0.1.3")]);
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.3"]));
}

#[tokio::test]
async fn networks_and_upstreams_change_under_a_running_container() {
    let Some(place) = place() else { return };
    let (front, back) = (Names::new(place.dir.path(), "front"), Names::new(place.dir.path(), "back"));
    front.write(&[("web", "10.0.1.2")]);
    back.write(&[("web", "10.0.2.2"), ("db", "10.0.2.3")]);
    let upstream = Server::start(Manner::Answers);
    let dir = place.shim_dir();
    let handle = start(&place, &config(&[&front], &[]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("db"), Said::code(NO_SUCH_NAME));
    config(&[&back, &front], &[upstream.address]).write(&dir).unwrap();
    assert_eq!(client.ask("db"), Said::is(&["10.0.2.3"]));
    assert_eq!(client.ask("web"), Said::is(&["10.0.2.2"]), "the first network answers");
    assert_eq!(client.ask("web.front"), Said::is(&["10.0.1.2"]));
    assert_eq!(client.ask("example.com"), Said::is(&[EXTERNAL]));
    ResolverConfig { internal: true, ..config(&[&front], &[upstream.address]) }.write(&dir).unwrap();
    assert_eq!(client.ask("example.com"), Said::code(NO_SUCH_NAME), "an internal network asks nobody");
    assert_eq!(client.ask("db"), Said::code(NO_SUCH_NAME));
    fs::write(dir.join(shim::RESOLVER_FILE), "damaged").unwrap();
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
}

#[tokio::test]
async fn without_orders_there_is_an_answer_too() {
    let Some(place) = place() else { return };
    let mut spec = place.spec("sleep 1000");
    spec.resolver = Some(ResolverSpec::default());
    let handle = place.spawn(&spec).await;
    handle.go().await.unwrap();
    assert_eq!(Client::of(handle.pid()).ask("web"), Said::code(FAILED));
}

#[tokio::test]
async fn a_running_container_gets_a_resolver_when_it_needs_one() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let handle = place.start("sleep 1000").await;
    config(&[&names], &[]).write(&place.shim_dir()).unwrap();
    for _ in 0..2 {
        handle.open_resolver().await.unwrap();
        assert_eq!(Client::of(handle.pid()).ask("web"), Said::is(&["10.0.1.2"]));
    }
    let exec = place.exec(&handle, "sleep 1000").await;
    assert!(matches!(exec.open_resolver().await, Err(client::RequestError::Refused { .. })));
}

#[tokio::test]
async fn port_53_is_free_for_the_container() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let handle = start(&place, &config(&[&names], &[]), "sleep 1000").await;
    let (own, _stream) = inside(handle.pid(), || {
        (
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap(),
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap(),
        )
    });
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    assert_eq!(ask_by_tcp(&mut client.stream(), "web"), Said::is(&["10.0.1.2"]));
    client.socket.connect((Ipv4Addr::LOCALHOST, 53)).unwrap();
    client.socket.send(b"to the container's own").unwrap();
    let mut buffer = [0; 64];
    own.set_read_timeout(Some(support::PATIENCE)).unwrap();
    assert_eq!(own.recv(&mut buffer).unwrap(), 22);
}

#[tokio::test]
async fn a_dead_and_a_silent_upstream_only_delay_the_first_answer() {
    let Some(place) = place() else { return };
    let (silent, good) = (Server::start(Manner::IsSilent), Server::start(Manner::Answers));
    let upstreams = [dns::address(), silent.address, good.address];
    let handle = start(&place, &config(&[], &upstreams), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    let began = Instant::now();
    assert_eq!(client.ask("one.example.com"), Said::is(&[EXTERNAL]));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.ask("two.example.com"), Said::is(&[EXTERNAL]));
    }
    eprintln!("20 answers beside a dead and a silent upstream: {:?}", began.elapsed());
    assert_eq!(silent.asked.load(Ordering::Relaxed), 1, "it is not waited for again");
}

#[tokio::test]
async fn an_upstream_that_fails_is_passed_over_and_its_word_counts_last() {
    let Some(place) = place() else { return };
    let (failing, good) = (Server::start(Manner::Fails), Server::start(Manner::Answers));
    let handle = start(&place, &config(&[], &[failing.address, good.address]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("example.com"), Said::is(&[EXTERNAL]));
    config(&[], &[failing.address]).write(&place.shim_dir()).unwrap();
    let began = Instant::now();
    assert_eq!(client.ask("example.com"), Said::code(FAILED));
    assert_eq!(ask_by_tcp(&mut client.stream(), "example.com"), Said::code(FAILED));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upstream_of_the_user_is_asked_from_inside() {
    let Some(place) = place() else { return };
    let handle = start(&place, &ResolverConfig::default(), "sleep 1000").await;
    let server = Server::start_inside(handle.pid(), Manner::Answers);
    let upstreams = vec![Upstream { address: server.address, inside: true }];
    ResolverConfig { upstreams, ..ResolverConfig::default() }.write(&place.shim_dir()).unwrap();
    let mut client = Client::of(handle.pid());
    assert_eq!(client.ask("example.com"), Said::is(&[EXTERNAL]));
    let outside = Server::start(Manner::Answers);
    config(&[], &[outside.address]).write(&place.shim_dir()).unwrap();
    assert_eq!(
        client.ask("example.com"),
        Said::is(&[EXTERNAL]),
        "the shim is back in the machine's namespace"
    );
    assert_eq!(outside.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn long_answers_come_by_tcp() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    let addresses: Vec<String> = (0..250).map(|last| format!("10.0.7.{last}")).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    names.write(&texts.iter().map(|text| ("tasks.web", *text)).collect::<Vec<_>>());
    let upstream = Server::start(Manner::NeedsTcp);
    let handle = start(&place, &config(&[&names], &[upstream.address]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    let short = client.ask("tasks.web");
    assert!(short.is_cut && short.addresses.len() == 30, "{short:?}");
    let mut stream = client.stream();
    assert_eq!(ask_by_tcp(&mut stream, "tasks.web"), Said::is(&texts));
    assert!(client.ask("example.com").is_cut, "the upstream's word is passed on");
    assert_eq!(ask_by_tcp(&mut stream, "example.com"), Said::is(&[EXTERNAL]));
    assert_eq!(ask_by_tcp(&mut stream, "tasks.web"), Said::is(&texts), "one connection, several questions");
}

#[tokio::test]
async fn a_client_that_asks_and_closes_its_side_gets_its_answers() {
    let Some(place) = place() else { return };
    let upstream = Server::start(Manner::Answers);
    let handle = start(&place, &config(&[], &[upstream.address]), "sleep 1000").await;
    let mut stream = Client::of(handle.pid()).stream();
    let query = query("example.com", 1, 5);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    stream.write_all(&[&framed[..], &framed].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    assert_eq!(replies.len(), 2 * (2 + query.len() + 16));
}

#[tokio::test]
async fn silent_upstreams_cost_an_error_in_time_and_our_own_names_nothing() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let silent = [Server::start(Manner::IsSilent), Server::start(Manner::IsSilent)];
    let config = config(&[&names], &silent.each_ref().map(|server| server.address));
    let handle = start(&place, &config, "sleep 1000").await;
    let (flood, mut client) = (Client::of(handle.pid()), Client::of(handle.pid()));
    // All replies come at the same time.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&flood.socket, 8 << 20).unwrap();
    let began = Instant::now();
    const ASKED: u16 = 1_100;
    for id in 0..ASKED {
        flood.socket.send(&query("slow.example.com", 1, id)).unwrap();
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let asked = Instant::now();
        assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
        slowest = slowest.max(asked.elapsed());
    }
    let (mut at_once, mut buffer) = (0, [0; 512]);
    for _ in 0..ASKED {
        let length = flood.socket.recv(&mut buffer).unwrap();
        assert_eq!((length > 12, buffer[3] & 0xf), (true, FAILED));
        at_once += usize::from(began.elapsed() < Duration::from_secs(3));
    }
    eprintln!(
        "{at_once} of {ASKED} refused at once, all answered after {:?}; slowest own: {slowest:?}",
        began.elapsed()
    );
    assert_eq!(at_once, usize::from(ASKED) - 1024);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn names_resolve_without_a_daemon_and_the_next_one_adopts() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let handle = start(&place, &config(&[&names], &[]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    let (pid, shim_pid) = (handle.pid(), handle.shim_pid());
    drop(handle);
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
    names.write(&[("web", "10.0.1.3")]);
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.3"]));
    let Adopted::Running(handle) = client::adopt(&place.shim_dir()).await.unwrap() else { panic!("it runs") };
    assert_eq!((handle.pid(), handle.shim_pid()), (pid, shim_pid));
    assert_eq!(client.ask("web"), Said::is(&["10.0.1.3"]));
    handle.signal(libc::SIGKILL, client::SignalTarget::All).await.unwrap();
    assert_eq!(exited(&handle).await.code, 137);
    support::until("the shim ends", || !is_alive(shim_pid)).await;
}

#[tokio::test]
async fn garbage_ends_no_container() {
    let Some(place) = place() else { return };
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2")]);
    let upstream = Server::start(Manner::Answers);
    let handle = start(&place, &config(&[&names], &[upstream.address]), "sleep 1000").await;
    let client = Client::of(handle.pid());
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    let good = query("example.com", 1, 9);
    for round in 0..5_000 {
        let mut bytes: Vec<u8> =
            if round % 2 == 0 { good.clone() } else { (0..random()).map(|_| random()).collect() };
        if let Some(place) = bytes.len().checked_sub(1) {
            bytes[usize::from(random()) % (place + 1)] = random();
        }
        client.socket.send(&bytes).unwrap();
    }
    for _ in 0..200 {
        let mut stream = client.stream();
        let bytes: Vec<u8> = (0..random()).map(|_| random()).collect();
        stream.write_all(&bytes).unwrap();
    }
    assert_eq!(Client::of(handle.pid()).ask("web"), Said::is(&["10.0.1.2"]));
    assert!(is_alive(handle.shim_pid()) && is_alive(handle.pid()));
    assert!(!place.shim_dir().join("panic.txt").exists());
}

/// How much memory is the process's alone; mapped files are everybody's.
fn private_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_idle_resolver_takes_no_memory_worth_the_name() {
    let Some(place) = place() else { return };
    let Some(other) = support::place() else { return };
    let plain = other.start("sleep 1000").await;
    let names = Names::new(place.dir.path(), "front");
    let many: Vec<String> = (0..20_000).map(|number| format!("service-{number}")).collect();
    names.write(&many.iter().map(|name| (name.as_str(), "10.0.1.2")).collect::<Vec<_>>());
    let upstream = Server::start(Manner::Answers);
    let handle = start(&place, &config(&[&names], &[upstream.address]), "sleep 1000").await;
    let mut client = Client::of(handle.pid());
    for name in many.iter().step_by(50) {
        assert_eq!(client.ask(name), Said::is(&["10.0.1.2"]));
        assert_eq!(client.ask("example.com"), Said::is(&[EXTERNAL]));
    }
    let (without, with) = (private_kib(plain.shim_pid()), private_kib(handle.shim_pid()));
    eprintln!("private memory of a shim: {without} KiB, with a resolver and 20,000 names {with} KiB");
    assert!(with < without + 64, "{with} KiB instead of {without}");
}

/// Twenty thousand of each kind of query from four clients at once; how fast is printed, since a debug build on a busy machine
/// proves nothing about speed.
#[tokio::test]
async fn a_flood_is_answered_without_a_failure() {
    let Some(place) = place() else { return };
    const CLIENTS: usize = 4;
    const EACH: usize = 5_000;
    let names = Names::new(place.dir.path(), "front");
    names.write(&[("web", "10.0.1.2"), ("tasks.web", "10.0.1.3"), ("tasks.web", "10.0.1.4")]);
    let upstream = Server::start(Manner::IsSlow(Duration::from_millis(100)));
    let config = config(&[&names], &[upstream.address]);
    let handle = start(&place, &config, "while :; do echo line; sleep 1; done").await;
    let pid = handle.pid();
    let flood = move |fresh_sockets: bool, external: bool| {
        let began = Instant::now();
        let clients = (0..CLIENTS).map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::of(pid);
                for round in 0..EACH {
                    if fresh_sockets && round % 10 == 0 {
                        client = Client::of(pid);
                    }
                    if external && round % 10 == 0 {
                        // Its answer is not waited for.
                        Client::of(pid).socket.send(&query("example.com", 1, 1)).unwrap();
                    }
                    assert_eq!(client.ask("web"), Said::is(&["10.0.1.2"]));
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        (CLIENTS * EACH) as f64 / began.elapsed().as_secs_f64()
    };
    for (what, fresh_sockets, external) in [
        ("own names", false, false),
        ("from many sockets", true, false),
        ("beside a slow upstream", false, true),
    ] {
        eprintln!("{what}: {:.0} answers a second, none failed", flood(fresh_sockets, external));
    }
    let lines = place.logged().await.len();
    assert!(lines > 0 && is_alive(handle.shim_pid()), "output goes on: {lines} lines");
}

#[tokio::test]
async fn a_container_without_a_resolver_has_nothing_of_it() {
    let Some(place) = place() else { return };
    let handle = place.start("sleep 1000").await;
    let refused = inside(handle.pid(), || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(dns::RESOLVER).unwrap();
        socket.send(&query("web", 1, 1)).unwrap();
        socket.recv(&mut [0; 16]).unwrap_err().kind()
    });
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    let address: IpAddr = shim::RESOLVER_ADDRESS.into();
    assert_eq!(address, IpAddr::from(dns::RESOLVER.0));
}
