//! Services created per second through the API of real daemons: one and three managers, one client and many.
//!
//! `SKEP=… cargo bench -p load` as root, where SKEP names the binary to measure. Starts machines of its own by `skep play`
//! and removes them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails says so, and prints its results"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long each figure is measured.
const RUN: Duration = Duration::from_secs(4);

fn main() {
    for managers in [1, 3] {
        let play = Play::start(managers);
        for (node, part) in [("n1", "leader"), ("n2", "follower")].into_iter().take(managers) {
            for clients in [1, 16, 64] {
                measure(&play.socket(node), managers, part, clients);
            }
        }
    }
}

/// Machines that end with the value.
struct Play(String);

impl Play {
    fn start(managers: usize) -> Self {
        let play = Self(format!("writes-{}-{managers}", std::process::id()));
        let count = managers.to_string();
        play.skep(&["--nodes", &count, "--managers", &count]);
        play
    }

    fn skep(&self, arguments: &[&str]) {
        let program = std::env::var("SKEP").expect("SKEP names the binary to measure");
        let done =
            Command::new(program).arg("play").args(arguments).args(["--name", &self.0]).output().unwrap();
        assert!(done.status.success(), "skep play {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn socket(&self, node: &str) -> PathBuf {
        Path::new("/var/lib/skep-play").join(&self.0).join(node).join("docker.sock")
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        self.skep(&["rm"]);
    }
}

fn measure(socket: &Path, managers: usize, part: &str, clients: usize) {
    let made = AtomicUsize::new(0);
    let refusals = Mutex::new(BTreeSet::new());
    let began = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let client = || {
            let mut connection = Connection::open(socket);
            let mut took = Vec::new();
            while began.elapsed() < RUN {
                let number = made.fetch_add(1, Ordering::Relaxed);
                let asked = Instant::now();
                match connection.create(&format!("{part}-{clients}-{number}")) {
                    Ok(()) => took.push(asked.elapsed()),
                    Err(why) => drop(refusals.lock().unwrap().insert(why)),
                }
            }
            took
        };
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        all.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let elapsed = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    println!(
        "{managers} manager(s), {clients:2} client(s) of the {part}: {:6.0} writes/s, p50 {:.2} ms, p99 {:.2} ms",
        took.len() as f64 / elapsed,
        at(50),
        at(99),
    );
    for refusal in refusals.into_inner().unwrap() {
        println!("    REFUSED: {refusal}");
    }
}

/// A connection to a daemon that is kept open.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).unwrap()))
    }

    /// Creates a service without tasks; the answer when it is refused.
    fn create(&mut self, name: &str) -> Result<(), String> {
        let body = format!(
            r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"none:1"}}}},"Mode":{{"Replicated":{{"Replicas":0}}}}}}"#
        );
        let head = format!(
            "POST /v1.44/services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all((head + &body).as_bytes()).unwrap();
        let mut status = String::new();
        self.0.read_line(&mut status).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        if status.contains(" 201 ") {
            return Ok(());
        }
        Err(format!("{} {}", status.trim(), String::from_utf8_lossy(&answer).trim()))
    }
}
