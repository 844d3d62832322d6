//! Starts a play: network, machines, daemons, swarm. What fails half-way stays for a look; `rm` removes it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cli::client::Client;
use cli::{CliError, output};
use ipnet::Ipv4Net;
use machine::{Lan, Machine};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::failed;
use crate::flags::StartFlags;
use crate::state::Play;

/// How long a daemon may take to answer. chosen: it takes milliseconds; a machine that swaps may need seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Pause between two looks whether a daemon answers; its socket is made by a process on another machine.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Where the managers listen. Source: swarmkit's default control port.
const CONTROL: &str = "0.0.0.0:2377";

pub(crate) fn start(name: &str, flags: &StartFlags) -> Result<(), CliError> {
    let began = Instant::now();
    if flags.managers > flags.nodes {
        return Err(CliError::new(format!("{} managers of {} nodes", flags.managers, flags.nodes)));
    }
    if Play::load(name).is_ok() {
        return Err(CliError::new(format!(
            "a play `{name}` is there already; see `skep play ls`, or remove it with `skep play rm`"
        )));
    }
    let program = std::env::current_exe().map_err(|error| CliError::file("find", "this program", &error))?;
    let play = Play::new(name, subnet(flags)?, flags.nodes)?;
    // First what tells how to remove the rest.
    play.save()?;
    play.lan.make().map_err(|error| failed(&error))?;
    let machines = play.make_machines(&flags.daemon_flag)?;
    for machine in &machines {
        machine.boot(&program).map_err(|error| failed(&error))?;
    }
    output::note(&format!("{} machines are on", machines.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error.to_string()))?;
    runtime.block_on(settle(&machines, flags))?;
    tell(&play, &machines, began.elapsed());
    Ok(())
}

fn subnet(flags: &StartFlags) -> Result<Ipv4Net, CliError> {
    if let Some(subnet) = flags.subnet {
        return Ok(subnet.trunc());
    }
    let choice = |third| Ipv4Net::new([10, 99, third, 0].into(), 24).expect("24 bits fit");
    let free = Lan::free((0..=255).map(choice)).map_err(|error| failed(&error))?;
    free.ok_or_else(|| CliError::new("all of 10.99.0.0/16 is in use; choose a --subnet"))
}

/// The daemon of a machine.
pub(crate) fn client(machine: &Machine) -> Result<Client, CliError> {
    Client::new(&format!("unix://{}", machine.socket().display()))
}

async fn settle(machines: &[Machine], flags: &StartFlags) -> Result<(), CliError> {
    for machine in machines {
        answers(machine).await?;
    }
    load(machines, &flags.load).await?;
    if flags.no_swarm {
        return Ok(());
    }
    let (first, others) = machines.split_first().expect("there is at least one");
    let ip = first.spec.address.addr().to_string();
    let request = json!({"ListenAddr": CONTROL, "AdvertiseAddr": ip});
    client(first)?.post("/swarm/init").json(&request).value().await?;
    let swarm = client(first)?.get("/swarm").value().await?;
    let mut joins = JoinSet::new();
    for (machine, number) in others.iter().zip(2..) {
        let role = if number <= flags.managers { "Manager" } else { "Worker" };
        let request = joining(machine, &ip, &swarm["JoinTokens"][role]);
        let (client, name) = (client(machine)?, machine.spec.name.clone());
        let join = async move {
            let joined = client.post("/swarm/join").json(&request).value().await;
            joined.map_err(|error| CliError::new(format!("{name} does not join: {}", error.message)))
        };
        if number <= flags.managers {
            // One after another: each changes who votes.
            join.await?;
        } else {
            joins.spawn(join);
        }
    }
    while let Some(joined) = joins.join_next().await {
        joined.expect("a request does not panic")?;
    }
    output::note(&format!("one swarm of {}, {} of them managers", machines.len(), flags.managers));
    Ok(())
}

fn joining(machine: &Machine, manager: &str, token: &Value) -> Value {
    json!({
        "ListenAddr": CONTROL,
        "AdvertiseAddr": machine.spec.address.addr().to_string(),
        "RemoteAddrs": [format!("{manager}:2377")],
        "JoinToken": token,
    })
}

/// Waits until the daemon of a machine answers.
pub(crate) async fn answers(machine: &Machine) -> Result<(), CliError> {
    let began = Instant::now();
    let client = client(machine)?;
    loop {
        match client.get("/_ping").text().await {
            Ok(_) => return Ok(()),
            Err(_) if began.elapsed() < ANSWERS_WITHIN => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) => {
                let (name, log) = (&machine.spec.name, machine.daemon_log());
                return Err(CliError::new(format!(
                    "the daemon of {name} does not answer ({}); its log is {}",
                    error.message,
                    log.display()
                )));
            }
        }
    }
}

async fn load(machines: &[Machine], archives: &[PathBuf]) -> Result<(), CliError> {
    for archive in archives {
        let path = archive.to_string_lossy();
        let content = std::fs::read(archive).map_err(|error| CliError::file("open", &path, &error))?;
        let content: bytes::Bytes = content.into();
        for machine in machines {
            let part = futures_util::stream::iter([Ok(content.clone())]);
            let client = client(machine)?;
            let call = client.post("/images/load").flag("quiet", true);
            let told = call.stream("application/x-tar", part).text().await?;
            if let Some(error) = told.lines().find_map(refusal) {
                return Err(CliError::new(format!("load {path} on {}: {error}", machine.spec.name)));
            }
        }
        output::note(&format!("loaded {path}"));
    }
    Ok(())
}

/// The error in a line of progress.
fn refusal(line: &str) -> Option<String> {
    serde_json::from_str::<Value>(line).ok()?["error"].as_str().map(str::to_owned)
}

fn tell(play: &Play, machines: &[Machine], took: Duration) {
    let name = if play.name == "play" { String::new() } else { format!(" --name {}", play.name) };
    let first = &machines[0];
    output::line(&format!(
        "Ready after {:.1} s. Talk to a machine in any of these ways:",
        took.as_secs_f64()
    ));
    output::line(&format!("  docker -H unix://{} node ls", first.socket().display()));
    output::line(&format!("  skep play exec{name} {} docker node ls", first.spec.name));
    output::line(&format!("Its published ports answer at {}.", first.spec.address.addr()));
    output::line(&format!(
        "See the machines with `skep play ls{name}`, remove them with `skep play rm{name}`."
    ));
}
