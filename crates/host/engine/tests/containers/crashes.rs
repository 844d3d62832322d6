//! Kills a process with an engine under load at seeded moments, and looks at what the next engine makes of it.
//!
//! The killed process is this binary again: it says on standard output what was acknowledged to it, one line each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use docker::{ContainerCreateRequest, HostConfig};
use engine::{Engine, RemoveOptions, Status, StopOptions};

use crate::world::{self, World, plain, shell};

crate::cases![acknowledged_changes_survive_kills];

pub(crate) const LOAD: &str = "load";
const ROUNDS: u64 = 12;
const WORKERS: u64 = 4;

/// Numbers from a seed: xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn say(word: &str, id: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {id}").unwrap();
    out.flush().unwrap();
}

/// The process that gets killed.
pub(crate) fn load(root: &str, parent: &str, seed: &str) -> ExitCode {
    let seed: u64 = seed.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = world::open(std::path::Path::new(root), parent).await;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..WORKERS {
            workers.spawn(work(engine.clone(), Dice(seed * 1000 + worker + 1)));
        }
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
    });
    ExitCode::SUCCESS
}

async fn work(engine: Engine, mut dice: Dice) {
    loop {
        let script = if dice.below(2) == 0 { "exec sleep 60" } else { "exit 3" };
        let mut config = shell(script);
        if dice.below(2) == 0 {
            config.volumes = Some([("/srv".to_owned(), Default::default())].into());
        }
        let host_config = if dice.below(2) == 0 { plain() } else { HostConfig::default() };
        let request = ContainerCreateRequest { config, host_config, ..Default::default() };
        let id = engine.create(request).await.unwrap().id;
        say("created", &id);
        engine.start(&id).await.unwrap();
        say("started", &id);
        if dice.below(2) == 0 {
            let options = StopOptions { timeout: Some(0), ..Default::default() };
            // It may have ended by itself.
            let _ = engine.stop(&id, options).await;
        }
        if dice.below(3) != 0 {
            say("removing", &id);
            engine.remove(&id, RemoveOptions { force: true, volumes: true }).await.unwrap();
            say("removed", &id);
        }
    }
}

async fn acknowledged_changes_survive_kills(mut world: World) {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut dice = Dice(0x5eed);
    for round in 0..ROUNDS {
        let lines = 1 + dice.below(60);
        world.away().await;
        let root = world.root.clone();
        let parent = world.parent.clone();
        let seed = round.to_string();
        let spoken = tokio::task::spawn_blocking(move || {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([LOAD, root.to_str().unwrap(), &parent, &seed])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut spoken: Vec<String> = Vec::new();
            for line in output.by_ref().map_while(Result::ok).take(usize::try_from(lines).unwrap()) {
                spoken.push(line);
            }
            child.kill().unwrap();
            child.wait().unwrap();
            // What it said before it died was acknowledged as well.
            spoken.extend(output.map_while(Result::ok));
            spoken
        })
        .await
        .unwrap();
        for line in spoken {
            let (word, id) = line.split_once(' ').unwrap();
            told.insert(id.to_owned(), word.to_owned());
        }
        world.back().await;
        check(&world, &told, round).await;
    }
    let left = world.engine.volume_list(&docker::Filters::default()).await.unwrap().volumes.len();
    let mounted: usize = {
        let mut mounted = 0;
        for state in world.engine.states() {
            mounted += world.engine.inspect(&state.id, false).await.unwrap().mounts.len();
        }
        mounted
    };
    assert_eq!(left, mounted, "every volume left belongs to a container");
}

async fn check(world: &World, told: &BTreeMap<String, String>, round: u64) {
    for (id, word) in told {
        let state = world.engine.state(id);
        match word.as_str() {
            "created" => assert!(state.is_some(), "round {round}: created container {id} is lost"),
            "started" => {
                let state = state.unwrap_or_else(|| panic!("round {round}: started container {id} is lost"));
                assert_ne!(state.status, Status::Created, "round {round}: the start of {id} is forgotten");
                is_true(world, &state).await;
            }
            "removed" => assert!(state.is_none(), "round {round}: removed container {id} is back"),
            _ => {}
        }
    }
}

/// Who is said to run has a process, or has ended just now and is about to be known for it.
async fn is_true(world: &World, state: &Arc<engine::ContainerState>) {
    if state.status == Status::Running {
        let pid = state.pid.unwrap();
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            world.until(&state.id, |now| now.status != Status::Running || now.pid != Some(pid)).await;
        }
    }
}
