//! `skep play ls`: what is on, what is plugged in, who manages.

use std::time::Duration;

use cli::{CliError, output};
use machine::Machine;
use serde_json::Value;

use crate::start::client;
use crate::state::Play;

/// How long a daemon may take to say what it is; one that is stopped by a signal never does.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

pub(crate) fn list(play: &Play) -> Result<(), CliError> {
    let mut lines =
        vec![["NODE", "ADDRESS", "MACHINE", "CABLE", "SWARM", "SOCKET"].map(str::to_owned).to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error.to_string()))?;
    for node in &play.nodes {
        let machine = play.machine(node)?;
        let part = if machine.is_on() { runtime.block_on(part_in_swarm(&machine)) } else { "-".to_owned() };
        lines.push(vec![
            node.clone(),
            machine.spec.address.addr().to_string(),
            if machine.is_on() { "on" } else { "off" }.to_owned(),
            if !machine.is_on() {
                "-"
            } else if machine.is_connected() {
                "plugged"
            } else {
                "cut"
            }
            .to_owned(),
            part,
            format!("unix://{}", machine.socket().display()),
        ]);
    }
    output::print(&output::table(lines, 0));
    Ok(())
}

/// What the daemon says of its part in the swarm.
async fn part_in_swarm(machine: &Machine) -> String {
    let Ok(client) = client(machine) else { return "no answer".to_owned() };
    let asked = tokio::time::timeout(ANSWERS_WITHIN, client.get("/info").value()).await;
    let Ok(Ok(info)) = asked else { return "no answer".to_owned() };
    match &info["Swarm"] {
        Value::Object(swarm) if swarm["LocalNodeState"] == "active" => {
            if swarm["ControlAvailable"] == true { "manager" } else { "worker" }.to_owned()
        }
        swarm => swarm["LocalNodeState"].as_str().unwrap_or("inactive").to_owned(),
    }
}
