//! Shows how a service converges after it was created or updated.
//!
//! In: the service, asked for every 200 ms as docker's client does (tasks have no events). Out: progress on stderr's
//! terminal, and an error when the update was paused or rolled back. Interrupting it leaves the service alone.

use crate::client::Client;
use crate::output::{line, note};
use crate::{CliError, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Source: docker/cli `cli/command/service/progress/progress.go`.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long all tasks must stay up. Source: the default monitor period, 5 s.
const MONITOR_DEFAULT_NS: u64 = 5_000_000_000;

/// Waits until the service runs as wanted and stays so for its monitor period.
///
/// # Errors
/// When an update or rollback was paused, or the daemon is lost.
pub async fn converge(client: &Client, id: &str, quiet: bool) -> Outcome {
    let watching = watch(client, id, quiet);
    tokio::select! {
        outcome = watching => outcome,
        _ = tokio::signal::ctrl_c() => {
            note("Operation continuing in background.");
            note(&format!("Use `skep service ps {id}` to check progress."));
            Ok(())
        }
    }
}

async fn watch(client: &Client, id: &str, quiet: bool) -> Outcome {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let mut stable_since: Option<Instant> = None;
    let mut updated = false;
    loop {
        let service = client.get(format!("/services/{id}")).value().await?;
        let rolling_back = match update_state(&service)? {
            State::None => false,
            State::Going { back } => {
                updated = true;
                back
            }
            State::Completed { back } => {
                if updated || back {
                    bar.finish_and_clear();
                    line(if back { "rollback: service rolled back" } else { "verify: Service converged" });
                    return Ok(());
                }
                false
            }
        };
        let (running, wanted) = counts(client, id, &service).await?;
        let what = if rolling_back { "rolling back update" } else { "overall progress" };
        let monitor = monitor(&service, rolling_back);
        let all = running >= wanted;
        match (all, stable_since) {
            (true, None) => stable_since = Some(Instant::now()),
            (true, Some(since)) if since.elapsed() >= monitor && !updated => {
                bar.finish_and_clear();
                line(&format!("overall progress: {running} out of {wanted} tasks"));
                line(&format!("verify: Service {id} converged"));
                return Ok(());
            }
            (false, Some(_)) => {
                stable_since = None;
                bar.println("verify: Detected task failure");
            }
            _ => {}
        }
        let verify = match stable_since {
            Some(since) => {
                let left = monitor.saturating_sub(since.elapsed()).as_secs() + 1;
                format!("\nverify: Waiting {left} seconds to verify that tasks are stable...")
            }
            None => String::new(),
        };
        bar.set_message(format!("{what}: {running} out of {wanted} tasks{verify}"));
        bar.tick();
        tokio::time::sleep(INTERVAL).await;
    }
}

enum State {
    None,
    Going { back: bool },
    Completed { back: bool },
}

fn update_state(service: &Value) -> Result<State, CliError> {
    let status = &service["UpdateStatus"];
    let message = status["Message"].as_str().unwrap_or_default();
    match status["State"].as_str().unwrap_or_default() {
        "updating" => Ok(State::Going { back: false }),
        "rollback_started" => Ok(State::Going { back: true }),
        "completed" => Ok(State::Completed { back: false }),
        "rollback_completed" => Ok(State::Completed { back: true }),
        "paused" => Err(CliError::new(format!("service update paused: {message}"))),
        "rollback_paused" => Err(CliError::new(format!("service rollback paused: {message}"))),
        _ => Ok(State::None),
    }
}

fn monitor(service: &Value, rolling_back: bool) -> Duration {
    let key = if rolling_back { "RollbackConfig" } else { "UpdateConfig" };
    let nanos = service["Spec"][key]["Monitor"].as_u64().filter(|nanos| *nanos > 0);
    Duration::from_nanos(nanos.unwrap_or(MONITOR_DEFAULT_NS))
}

/// Running up-to-date tasks and wanted ones; tasks on nodes that are down don't count.
async fn counts(client: &Client, id: &str, service: &Value) -> Result<(usize, usize), CliError> {
    let filters = json!({"service": {id: true}, "_up-to-date": {"true": true}}).to_string();
    let tasks = client.get("/tasks").query("filters", filters).value().await?;
    let nodes = client.get("/nodes").value().await?;
    let live: BTreeMap<&str, &Value> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| node["Status"]["State"] != "down")
        .filter_map(|node| Some((node["ID"].as_str()?, node)))
        .collect();
    let wanted_now = |task: &&Value| task["DesiredState"] == "running" || task["DesiredState"] == "ready";
    let tasks: Vec<&Value> = tasks.as_array().into_iter().flatten().filter(wanted_now).collect();
    let on_live = |task: &&&Value| {
        task["NodeID"].as_str().is_none_or(|node| node.is_empty() || live.contains_key(node))
    };
    let running = tasks.iter().filter(on_live).filter(|task| task["Status"]["State"] == "running").count();
    let wanted = match service["Spec"]["Mode"]["Replicated"].get("Replicas") {
        _ if service["Spec"]["Mode"].get("Global").is_some() => tasks.iter().filter(on_live).count().max(1),
        replicas => usize::try_from(replicas.and_then(Value::as_u64).unwrap_or(1)).unwrap_or(usize::MAX),
    };
    Ok((running, wanted))
}
