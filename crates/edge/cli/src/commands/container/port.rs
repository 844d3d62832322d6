//! `port`: where a container's ports are published.
//!
//! In: a container, perhaps one of its ports. Out: a line per address of the host.

use crate::client::Client;
use crate::output::line;
use crate::{CliError, Outcome};
use clap::Args;
use serde_json::Value;

/// `port CONTAINER [PRIVATE_PORT[/PROTO]]`
#[derive(Debug, Args)]
pub struct Port {
    /// Container
    container: String,
    /// One port of the container
    port: Option<String>,
}

impl Port {
    /// Prints the addresses; an error when the one port asked for is not published.
    pub async fn run(self, client: &Client) -> Outcome {
        let name = &self.container;
        let container = client.get(format!("/containers/{name}/json")).value().await?;
        let ports = container["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
        if let Some(asked) = &self.port {
            let number = asked.split('/').next().unwrap_or_default();
            if number.parse::<u16>().is_err() {
                let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
                let why = if is_number { "value out of range" } else { "invalid syntax" };
                let why = format!("strconv.ParseUint: parsing \"{number}\": {why}");
                return Err(CliError::new(format!("Error: invalid port ({number}): {why}")));
            }
            let key = if asked.contains('/') { asked.clone() } else { format!("{asked}/tcp") };
            let found = ports.get(&key).map(addresses).unwrap_or_default();
            if found.is_empty() {
                return Err(CliError::new(format!("Error: No public port '{asked}' published for {name}")));
            }
            found.iter().for_each(|address| line(address));
            return Ok(());
        }
        let mut all: Vec<(u16, String)> = Vec::new();
        for (port, bindings) in &ports {
            let number = port.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            all.extend(
                addresses(bindings).into_iter().map(|address| (number, format!("{port} -> {address}"))),
            );
        }
        all.sort();
        all.iter().for_each(|(_, text)| line(text));
        Ok(())
    }
}

fn addresses(bindings: &Value) -> Vec<String> {
    let all = bindings.as_array().into_iter().flatten();
    all.map(|binding| {
        let (ip, port) = (binding["HostIp"].as_str(), binding["HostPort"].as_str());
        let (ip, port) = (ip.unwrap_or_default(), port.unwrap_or_default());
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    })
    .collect()
}
