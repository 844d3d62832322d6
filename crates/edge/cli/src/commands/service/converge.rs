//! Waits until a service runs as wanted after it was created or changed, and shows how far it is.
//!
//! In: the service, its tasks and the nodes, asked for every 200 ms as docker's client does (tasks have no events). Out:
//! progress on stdout, an error when the rollout was paused. Interrupting it leaves the service alone. Source: docker/cli
//! 28.2 `cli/command/service/progress/progress.go`.

use crate::client::Client;
use crate::output;
use crate::progress::{Board, Far, Message};
use crate::{CliError, Outcome};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);
/// How long all tasks must stay up unless the service says otherwise.
const MONITOR_DEFAULT: Duration = Duration::from_secs(5);
/// More tasks than this have no line of their own.
const LINES_MAX: u64 = 20;
/// Columns of the longest state, `preparing`.
const STATE_WIDTH: usize = 9;
/// Characters of an error that are shown.
const ERROR_WIDTH: usize = 75;
/// Characters of a node's id that are shown. Source: docker, `stringid.TruncateID`.
const ID_SHOWN: usize = 12;
/// The states in order; from the tenth on a task is over.
const STATES: [&str; 13] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
];
const RUNNING: usize = 9;

/// Waits until the service `name` runs as wanted and stays so for its monitor period.
///
/// # Errors
/// When an update or rollback was paused, or the daemon is lost.
pub async fn wait(client: &Client, name: &str, quiet: bool) -> Outcome {
    let mut board = Board::new(output::columns());
    let mut progress = Progress::new(name);
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let mut messages = Vec::new();
        let look = async {
            rounds.tick().await;
            progress.look(client, &mut messages).await
        };
        let is_over = tokio::select! {
            is_over = look => is_over,
            _ = &mut interrupted => {
                progress.leave(&mut messages);
                Ok(true)
            }
        };
        if !quiet {
            messages.iter().for_each(|message| output::print(&board.draw(message)));
        }
        if is_over? {
            return Ok(());
        }
    }
}

/// What was seen of the service so far.
struct Progress<'a> {
    name: &'a str,
    monitor: Duration,
    rolls_back: bool,
    converged: bool,
    since: Option<Instant>,
    /// Shown when all is done.
    last: Option<Message>,
    tasks: Tasks,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Progress<'a> {
        let tasks = Tasks::default();
        let (rolls_back, converged) = (false, false);
        Progress { name, monitor: MONITOR_DEFAULT, rolls_back, converged, since: None, last: None, tasks }
    }

    /// Asks once; whether there is nothing more to wait for.
    async fn look(&mut self, client: &Client, out: &mut Vec<Message>) -> Result<bool, CliError> {
        let service = client.get(format!("/services/{}", self.name)).value().await?;
        if self.service(&service, Instant::now(), out)? {
            return Ok(true);
        }
        let id = service["ID"].as_str().unwrap_or_default();
        let filters = json!({"service": {id: true}, "_up-to-date": {"true": true}});
        let tasks = client.get("/tasks").query("filters", filters).value().await?;
        let nodes = client.get("/nodes").value().await?;
        self.round(&service["Spec"]["Mode"], &Round::of(&tasks, &nodes), Instant::now(), out)?;
        Ok(false)
    }

    /// Takes the service's rollout in; whether there is nothing more to wait for.
    fn service(&mut self, service: &Value, now: Instant, out: &mut Vec<Message>) -> Result<bool, CliError> {
        let monitor = service["Spec"]["UpdateConfig"]["Monitor"].as_u64().filter(|nanos| *nanos > 0);
        self.monitor = monitor.map_or(self.monitor, Duration::from_nanos);
        let status = &service["UpdateStatus"];
        let text = status["Message"].as_str().unwrap_or_default();
        match status["State"].as_str().unwrap_or_default() {
            "updating" => self.rolls_back = false,
            "completed" if !self.converged => return Ok(true),
            "paused" => return Err(CliError::new(format!("service update paused: {text}"))),
            "rollback_started" => {
                if !self.rolls_back && !text.is_empty() {
                    out.push(Message::moving("rollback", text, Far::default()));
                }
                self.rolls_back = true;
            }
            "rollback_paused" => return Err(CliError::new(format!("service rollback paused: {text}"))),
            "rollback_completed" => {
                if !self.converged {
                    self.last = Some(Message::lasting("rollback", text));
                }
                self.rolls_back = true;
            }
            _ => {}
        }
        let stable = self.since.is_some_and(|since| now.duration_since(since) >= self.monitor);
        if self.converged && stable {
            out.push(verify(format!("Service {} converged", self.name)));
            out.extend(self.last.take());
            return Ok(true);
        }
        Ok(false)
    }

    fn round(&mut self, mode: &Value, round: &Round<'_>, now: Instant, out: &mut Vec<Message>) -> Outcome {
        self.tasks.rolls_back = self.rolls_back;
        self.converged = if let Some(replicas) = mode["Replicated"]["Replicas"].as_u64() {
            self.tasks.replicated(replicas, round, out)
        } else if mode["Global"].is_object() {
            self.tasks.global(round, out)
        } else {
            return Err(CliError::new("unrecognized service mode"));
        };
        if self.converged {
            let since = *self.since.get_or_insert(now);
            if let Some(left) = self.monitor.checked_sub(now.duration_since(since)) {
                let seconds = left.as_millis().div_ceil(1000).max(1);
                out.push(verify(format!("Waiting {seconds} seconds to verify that tasks are stable...")));
            }
        } else if self.since.take().is_some() {
            out.push(verify("Detected task failure".to_owned()));
        }
        Ok(())
    }

    /// The user interrupts: says how to look again.
    fn leave(&self, out: &mut Vec<Message>) {
        if !self.converged {
            out.push(Message::lasting("", "Operation continuing in background."));
            let hint = format!("Use `skep service ps {}` to check progress.", self.name);
            out.push(Message::lasting("", hint));
        }
    }
}

fn verify(text: String) -> Message {
    Message::moving("verify", text, Far::default())
}

/// What one look at the swarm showed.
struct Round<'a> {
    tasks: Vec<Seen<'a>>,
    /// Nodes that are not down.
    live: BTreeSet<&'a str>,
}

impl<'a> Round<'a> {
    fn of(tasks: &'a Value, nodes: &'a Value) -> Round<'a> {
        let nodes = nodes.as_array().into_iter().flatten();
        let live =
            nodes.filter(|node| node["Status"]["State"] != "down").filter_map(|node| node["ID"].as_str());
        let tasks = tasks.as_array().into_iter().flatten().filter_map(Seen::of);
        Round { tasks: tasks.collect(), live: live.collect() }
    }
}

/// A task as far as its progress is concerned.
#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    slot: u64,
    node: &'a str,
    /// Place in [`STATES`], from 1.
    desired: usize,
    observed: usize,
    error: &'a str,
}

impl<'a> Seen<'a> {
    /// None for a task in a state that has no place in the order.
    fn of(task: &'a Value) -> Option<Seen<'a>> {
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        let place = |state: &Value| {
            STATES.iter().position(|known| state.as_str() == Some(known)).map(|place| place + 1)
        };
        Some(Seen {
            slot: task["Slot"].as_u64().unwrap_or(0),
            node: text(&task["NodeID"]),
            desired: place(&task["DesiredState"])?,
            observed: place(&task["Status"]["State"])?,
            error: text(&task["Status"]["Err"]),
        })
    }

    fn runs(&self) -> bool {
        self.desired <= RUNNING && self.observed == RUNNING
    }

    fn line(&self, id: String) -> Option<Message> {
        if !self.error.is_empty() {
            let error = self.error.replace('\n', " ");
            return Some(Message::moving(id, shortened(&error), Far::default()));
        }
        if self.desired > RUNNING || self.observed > RUNNING {
            return None;
        }
        let state = format!("{:<STATE_WIDTH$}", STATES[self.observed - 1]);
        let far = |place: usize| u64::try_from(place).unwrap_or(0);
        let far = Far {
            current: far(self.observed),
            total: far(RUNNING),
            is_uncounted: true,
            units: String::new(),
        };
        Some(Message::moving(id, state, far))
    }
}

/// Cuts at a byte count, as docker does, but never inside a character.
fn shortened(error: &str) -> String {
    if error.len() <= ERROR_WIDTH {
        return error.to_owned();
    }
    let end = (0..ERROR_WIDTH).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &error[..end])
}

/// Of several tasks in one place: the one that is to go least far, then the one that went least far.
fn chosen<'a, K: Ord>(
    tasks: &[Seen<'a>],
    place: impl Fn(&Seen<'a>) -> K,
    may_replace: impl Fn(&Seen<'a>) -> bool,
) -> BTreeMap<K, Seen<'a>> {
    let mut all: BTreeMap<K, Seen<'a>> = BTreeMap::new();
    for task in tasks {
        let held = all.get(&place(task));
        if held.is_some_and(|held| (held.desired, held.observed) <= (task.desired, task.observed)) {
            continue;
        }
        if may_replace(task) {
            all.insert(place(task), *task);
        }
    }
    all
}

/// What is on the board about the tasks.
#[derive(Default)]
struct Tasks {
    is_drawn: bool,
    is_done: bool,
    rolls_back: bool,
    /// The line of each slot, from 1.
    lines: BTreeMap<u64, u64>,
}

impl Tasks {
    fn replicated(&mut self, replicas: u64, round: &Round<'_>, out: &mut Vec<Message>) -> bool {
        if !self.is_drawn {
            self.is_drawn = true;
            out.push(self.overall(0, replicas));
            if replicas <= LINES_MAX {
                let empty = |line| Message::moving(format!("{line}/{replicas}"), " ", Far::default());
                out.extend((1..=replicas).map(empty));
            }
        }
        let is_live = |task: &Seen<'_>| task.node.is_empty() || round.live.contains(task.node);
        let by_slot = chosen(&round.tasks, |task| task.slot, is_live);
        self.is_done = self.is_done && by_slot.values().all(|task| task.observed == RUNNING);
        for (slot, task) in &by_slot {
            let next = u64::try_from(self.lines.len()).unwrap_or(u64::MAX) + 1;
            let line = *self.lines.entry(*slot).or_insert(next);
            if !self.is_done && replicas <= LINES_MAX && line <= replicas {
                out.extend(task.line(format!("{line}/{replicas}")));
            }
        }
        self.counted(by_slot.values().filter(|task| task.runs()).count(), replicas, out)
    }

    fn global(&mut self, round: &Round<'_>, out: &mut Vec<Message>) -> bool {
        let by_node = chosen(&round.tasks, |task| task.node, |_| true);
        let wanted = u64::try_from(by_node.len()).unwrap_or(u64::MAX);
        if !self.is_drawn {
            if by_node.is_empty() {
                out.push(Message::moving("overall progress", "waiting for new tasks", Far::default()));
                return false;
            }
            self.is_drawn = true;
            out.push(self.overall(0, wanted));
        }
        self.is_done = self.is_done && by_node.values().all(|task| task.observed == RUNNING);
        let on_live = || by_node.values().filter(|task| round.live.contains(task.node));
        if !self.is_done && wanted <= LINES_MAX {
            out.extend(on_live().filter_map(|task| task.line(task.node.chars().take(ID_SHOWN).collect())));
        }
        self.counted(on_live().filter(|task| task.runs()).count(), wanted, out)
    }

    fn counted(&mut self, running: usize, wanted: u64, out: &mut Vec<Message>) -> bool {
        let running = u64::try_from(running).unwrap_or(u64::MAX);
        if !self.is_done {
            out.push(self.overall(running, wanted));
            self.is_done = running == wanted;
        }
        running == wanted
    }

    fn overall(&self, running: u64, wanted: u64) -> Message {
        let what = if self.rolls_back { "rolling back update: " } else { "" };
        Message::moving("overall progress", format!("{what}{running} out of {wanted} tasks"), Far::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u64, desired: &str, observed: &str, error: &str) -> Value {
        json!({"Slot": slot, "NodeID": "n1", "DesiredState": desired, "Status": {"State": observed, "Err": error}})
    }

    fn service(mode: Value, state: &str, text: &str) -> Value {
        json!({"ID": "s", "Spec": {"Mode": mode}, "UpdateStatus": {"State": state, "Message": text}})
    }

    /// Goes through `rounds` 200 ms apart; the lines, and whether it ended.
    fn gone_through(rounds: &[(Value, Value)]) -> (Vec<String>, Result<bool, String>) {
        let mut progress = Progress::new("web");
        let mut out = Vec::new();
        let nodes =
            json!([{"ID": "n1", "Status": {"State": "ready"}}, {"ID": "n2", "Status": {"State": "down"}}]);
        let began = Instant::now();
        let mut end = Ok(false);
        for (number, (service, tasks)) in (0_u32..).zip(rounds) {
            let now = began + INTERVAL * number;
            end = progress.service(service, now, &mut out).map_err(|error| error.message);
            if end != Ok(false) {
                break;
            }
            let round = Round::of(tasks, &nodes);
            progress.round(&service["Spec"]["Mode"], &round, now, &mut out).expect("the mode is known");
        }
        (out.into_iter().map(|message| format!("{}: {}", message.id, message.status)).collect(), end)
    }

    fn two() -> Value {
        json!({"Replicated": {"Replicas": 2}})
    }

    #[test]
    fn slots_get_lines_in_order_and_gaps_are_closed() {
        let tasks = json!([task(4, "running", "starting", ""), task(7, "running", "assigned", "no\nluck")]);
        let (lines, end) = gone_through(&[(service(two(), "", ""), tasks)]);
        let expect = [
            "overall progress: 0 out of 2 tasks",
            "1/2:  ",
            "2/2:  ",
            "1/2: starting ",
            "2/2: no luck",
            "overall progress: 0 out of 2 tasks",
        ];
        assert_eq!((lines, end), (expect.map(str::to_owned).to_vec(), Ok(false)));
    }

    #[test]
    fn a_service_that_stays_up_has_converged_after_its_monitor_period() {
        let tasks = json!([task(1, "running", "running", ""), task(2, "running", "running", "")]);
        let rounds = vec![(service(two(), "", ""), tasks); 27];
        let (lines, end) = gone_through(&rounds);
        assert_eq!(end, Ok(true));
        assert_eq!(lines.iter().filter(|line| line.contains("Waiting 5 seconds")).count(), 5);
        assert_eq!(lines.last().map(String::as_str), Some("verify: Service web converged"));
        let (_, end) = gone_through(&rounds[..25]);
        assert_eq!(end, Ok(false), "5 s are not over after 24 rounds");
    }

    #[test]
    fn a_failure_while_verifying_is_told() {
        let up = json!([task(1, "running", "running", ""), task(2, "running", "running", "")]);
        let broken = json!([task(1, "running", "running", ""), task(2, "running", "pending", "")]);
        let (lines, _) = gone_through(&[(service(two(), "", ""), up), (service(two(), "", ""), broken)]);
        let told = lines.iter().position(|line| line == "verify: Detected task failure");
        assert_eq!(told, Some(lines.len() - 1));
        assert!(lines.contains(&"overall progress: 1 out of 2 tasks".to_owned()));
    }

    #[test]
    fn a_rollout_that_stops_ends_the_wait() {
        for (state, expect) in [
            ("completed", Ok(true)),
            ("paused", Err("service update paused: why".to_owned())),
            ("rollback_paused", Err("service rollback paused: why".to_owned())),
            ("rollback_started", Ok(false)),
        ] {
            let (lines, end) = gone_through(&[(service(two(), state, "why"), json!([]))]);
            assert_eq!(end, expect, "{state}");
            let told = lines.first().is_some_and(|line| line == "rollback: why");
            assert_eq!(told, state == "rollback_started", "{lines:?}");
        }
    }

    #[test]
    fn global_services_count_the_nodes_that_have_tasks() {
        let mode = json!({"Global": {}});
        let mut elsewhere = task(0, "running", "running", "");
        elsewhere["NodeID"] = json!("n2");
        let tasks = json!([task(0, "running", "running", ""), elsewhere]);
        let (lines, _) =
            gone_through(&[(service(mode.clone(), "", ""), json!([])), (service(mode, "", ""), tasks)]);
        let expect = [
            "overall progress: waiting for new tasks",
            "overall progress: 0 out of 2 tasks",
            "n1: running  ",
            "overall progress: 1 out of 2 tasks",
        ];
        assert_eq!(lines, expect);
    }

    #[test]
    fn of_two_tasks_in_a_slot_the_older_state_is_shown() {
        let tasks = json!([
            task(1, "shutdown", "running", ""),
            task(1, "running", "starting", ""),
            task(1, "running", "running", "")
        ]);
        let (lines, _) = gone_through(&[(service(json!({"Replicated": {"Replicas": 1}}), "", ""), tasks)]);
        assert_eq!(lines[2..], ["1/1: starting ", "overall progress: 0 out of 1 tasks"]);
    }

    #[test]
    fn long_errors_are_cut() {
        assert_eq!(shortened(&"x".repeat(80)), format!("{}…", "x".repeat(74)));
        assert_eq!(shortened(&"é".repeat(40)), format!("{}…", "é".repeat(37)));
    }
}
