//! `stats`: how much containers use, again and again.
//!
//! In: the daemon's readings, each with the one before. Out: Docker's table, with its percentages.

use crate::client::Client;
use crate::output::{self, Row, Shape, Wish};
use crate::{CliError, Outcome};
use clap::Args;
use docker::stats::Stats as Reading;
use docker::units::{bytes_size, human_size};
use futures_util::future::join_all;
use std::io::IsTerminal as _;

const SHAPE: Shape = Shape {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    quiet: "ID",
    others: &[("Container", "CONTAINER")],
};

/// `stats [OPTIONS] [CONTAINER...]`
#[derive(Debug, Args)]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Containers; all that run if none is named
    containers: Vec<String>,
}

impl Stats {
    /// Prints a table, and then another each time that all containers were read anew.
    pub async fn run(self, client: &Client) -> Outcome {
        if self.all && !self.containers.is_empty() {
            // Source: docker/cli `stats.go`.
            return Err(CliError::new("you cannot specify containers when using the --all option"));
        }
        for name in &self.containers {
            client.get(format!("/containers/{name}/json")).send().await?;
        }
        loop {
            let names = self.names(client).await?;
            let readings = join_all(names.iter().map(|name| reading(client, name))).await;
            // One that was removed meanwhile is left out.
            let found = names.iter().zip(readings).filter_map(|(name, found)| Some((name, found.ok()?)));
            let rows: Vec<Row> = found.map(|(name, reading)| self.row(name, &reading)).collect();
            if !self.no_stream && std::io::stdout().is_terminal() {
                output::print("\x1b[2J\x1b[H");
            }
            output::list(&SHAPE, &Wish { format: self.format.as_deref(), quiet: false }, &rows)?;
            if self.no_stream {
                return Ok(());
            }
            if names.is_empty() {
                // Nothing to wait for with a reading.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }

    async fn names(&self, client: &Client) -> Result<Vec<String>, CliError> {
        if !self.containers.is_empty() {
            return Ok(self.containers.clone());
        }
        let found = client.get("/containers/json").flag("all", self.all).value().await?;
        let ids = found.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str());
        Ok(ids.map(|id| if self.no_trunc { id } else { &id[..id.len().min(12)] }.to_owned()).collect())
    }

    fn row(&self, container: &str, reading: &Reading) -> Row {
        let memory = used_memory(reading);
        let limit = reading.memory_stats.limit;
        let share = if limit == 0 { 0.0 } else { memory as f64 / limit as f64 * 100.0 };
        let networks = reading.networks.iter().flat_map(|networks| networks.values());
        let (received, sent) = networks.fold((0, 0), |(rx, tx), one| (rx + one.rx_bytes, tx + one.tx_bytes));
        let id = reading.id.as_str();
        Row::new()
            .with("Container", container)
            .with("Name", reading.name.trim_start_matches('/'))
            .with("ID", if self.no_trunc { id } else { &id[..id.len().min(12)] })
            .with("CPUPerc", format!("{:.2}%", cpu_percent(reading)))
            .with("MemUsage", format!("{} / {}", bytes_size(memory), bytes_size(limit)))
            .with("MemPerc", format!("{share:.2}%"))
            .with("NetIO", format!("{} / {}", human_size(received, 3), human_size(sent, 3)))
            .with(
                "BlockIO",
                format!(
                    "{} / {}",
                    human_size(block(reading, "read"), 3),
                    human_size(block(reading, "write"), 3)
                ),
            )
            .with("PIDs", reading.pids_stats.current.to_string())
    }
}

async fn reading(client: &Client, name: &str) -> Result<Reading, CliError> {
    let value = client.get(format!("/containers/{name}/stats")).query("stream", "false").value().await?;
    serde_json::from_value(value)
        .map_err(|error| CliError::new(format!("the daemon's answer is no reading: {error}")))
}

/// Of one CPU; source: docker/cli `stats_helpers.go`, `calculateCPUPercentUnix`.
fn cpu_percent(reading: &Reading) -> f64 {
    let (now, before) = (&reading.cpu_stats, &reading.precpu_stats);
    let own = now.cpu_usage.total_usage.saturating_sub(before.cpu_usage.total_usage);
    let all = now.system_cpu_usage.saturating_sub(before.system_cpu_usage);
    if all == 0 { 0.0 } else { own as f64 / all as f64 * f64::from(now.online_cpus) * 100.0 }
}

/// Without what the kernel would drop first; source: docker/cli `calculateMemUsageUnixNoCache`.
fn used_memory(reading: &Reading) -> u64 {
    let memory = &reading.memory_stats;
    let names = ["total_inactive_file", "inactive_file"];
    let cache = names.iter().find_map(|name| memory.stats.get(*name)).copied().unwrap_or(0);
    if cache < memory.usage { memory.usage - cache } else { memory.usage }
}

fn block(reading: &Reading, operation: &str) -> u64 {
    let entries = reading.blkio_stats.io_service_bytes_recursive.iter().flatten();
    entries.filter(|entry| entry.op.eq_ignore_ascii_case(operation)).map(|entry| entry.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_of_one_cpu() {
        let mut reading = Reading::default();
        assert_eq!(cpu_percent(&reading), 0.0);
        reading.precpu_stats.cpu_usage.total_usage = 100;
        reading.precpu_stats.system_cpu_usage = 1000;
        reading.cpu_stats.cpu_usage.total_usage = 200;
        reading.cpu_stats.system_cpu_usage = 1400;
        reading.cpu_stats.online_cpus = 4;
        assert_eq!(cpu_percent(&reading), 100.0);
        // A container that was started anew counts from zero.
        reading.cpu_stats.cpu_usage.total_usage = 50;
        assert_eq!(cpu_percent(&reading), 0.0);
    }

    #[test]
    fn the_cache_that_goes_first_is_not_counted() {
        let mut reading = Reading::default();
        reading.memory_stats.usage = 100;
        assert_eq!(used_memory(&reading), 100);
        reading.memory_stats.stats.insert("inactive_file".into(), 30);
        assert_eq!(used_memory(&reading), 70);
        reading.memory_stats.stats.insert("total_inactive_file".into(), 130);
        assert_eq!(used_memory(&reading), 100);
    }
}
