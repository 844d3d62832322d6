//! `service logs`: the logs of all tasks, each line with the task it comes from.
//!
//! In: the daemon's frames, whose details name node and task. Out: `web.1.6io77hbuon0q@node    | line`, in docker's form.

use crate::client::Client;
use crate::commands::container::attach::{self, LogFlags};
use crate::{CliError, Outcome, stream};
use bytes::BytesMut;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Characters of an id that are shown. Source: docker, `stringid.TruncateID`.
const ID_SHOWN: usize = 12;

/// `service logs [OPTIONS] SERVICE|TASK`
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    flags: LogFlags,
    /// Do not map IDs to Names in output
    #[arg(long)]
    no_resolve: bool,
    /// Do not include task IDs in output
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    /// Service or task whose logs to show
    name: String,
}

/// What a line begins with, by task.
struct Prefixes {
    by_task: BTreeMap<String, String>,
    width: usize,
    with_time: bool,
    with_details: bool,
}

impl Logs {
    /// Prints the logs.
    pub(crate) async fn run(self, client: &Client) -> Outcome {
        let name = &self.name;
        let (path, spec, filter) = match client.get(format!("/services/{name}")).value().await {
            Ok(service) => {
                let filter = json!({"service": {service["ID"].as_str().unwrap_or_default(): true}});
                (format!("/services/{name}/logs"), service["Spec"]["TaskTemplate"].clone(), filter)
            }
            Err(error) if error.status == Some(404) => {
                let task = client.get(format!("/tasks/{name}")).value().await;
                let task = task.map_err(|_| CliError::new(format!("no such task or service: {name}")))?;
                let filter = json!({"id": {task["ID"].as_str().unwrap_or_default(): true}});
                (format!("/tasks/{name}/logs"), task["Spec"].clone(), filter)
            }
            Err(error) => return Err(error),
        };
        if spec["ContainerSpec"]["TTY"] == Value::Bool(true) {
            if !self.raw {
                return Err(CliError::new("tty service logs only supported with --raw"));
            }
            return attach::show(self.flags.ask(client, &path).await?, true).await;
        }
        if self.raw {
            return attach::show(self.flags.ask(client, &path).await?, false).await;
        }
        let prefixes = self.prefixes(client, &filter).await?;
        let flags = LogFlags { details: true, ..self.flags.clone() };
        let frames = attach::frames(flags.ask(client, &path).await?.into_body());
        let copied = stream::copy_framed_as(frames, |line| prefixes.shown(&line)).await;
        copied.map_err(|error| CliError::new(error.to_string()))
    }

    async fn prefixes(&self, client: &Client, filter: &Value) -> Result<Prefixes, CliError> {
        let tasks = client.get("/tasks").query("filters", filter).value().await?;
        let name_of = |list: Value, at: &str| -> BTreeMap<String, String> {
            let all = list.as_array().cloned().unwrap_or_default();
            let pair =
                |item: Value| Some((item["ID"].as_str()?.to_owned(), item.pointer(at)?.as_str()?.to_owned()));
            all.into_iter().filter_map(pair).collect()
        };
        let (nodes, services) = if self.no_resolve {
            (BTreeMap::new(), BTreeMap::new())
        } else {
            let nodes = client.get("/nodes").value().await?;
            let services = client.get("/services").value().await?;
            (name_of(nodes, "/Description/Hostname"), name_of(services, "/Spec/Name"))
        };
        let mut by_task = BTreeMap::new();
        for task in tasks.as_array().into_iter().flatten() {
            let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
            let cut = |id: &str| -> String {
                if self.no_trunc { id.to_owned() } else { id.chars().take(ID_SHOWN).collect() }
            };
            let resolved =
                |all: &BTreeMap<String, String>, id: &str| all.get(id).cloned().unwrap_or_else(|| cut(id));
            let (node, service) =
                (resolved(&nodes, &text("NodeID")), resolved(&services, &text("ServiceID")));
            let place = match task["Slot"].as_u64() {
                Some(slot) if slot > 0 => slot.to_string(),
                _ => node.clone(),
            };
            let id = if self.no_task_ids { String::new() } else { format!(".{}", cut(&text("ID"))) };
            by_task.insert(text("ID"), format!("{service}.{place}{id}@{node}"));
        }
        let width = by_task.values().map(|prefix| prefix.chars().count()).max().unwrap_or(0);
        Ok(Prefixes { by_task, width, with_time: self.flags.timestamps, with_details: self.flags.details })
    }
}

impl Prefixes {
    /// `[time ]details message` as `[time ][other details ]prefix    | message`.
    fn shown(&self, line: &[u8]) -> BytesMut {
        let text = String::from_utf8_lossy(line);
        let (time, rest) = match text.split_once(' ') {
            Some((time, rest)) if self.with_time => (format!("{time} "), rest),
            _ => (String::new(), &*text),
        };
        let (details, message) = rest.split_once(' ').unwrap_or(("", rest));
        let mut task = "";
        let mut others = Vec::new();
        for detail in details.split(',') {
            match detail.split_once('=') {
                Some(("com.docker.swarm.task.id", id)) => task = id,
                Some((key, _)) if key.starts_with("com.docker.swarm.") => {}
                _ => others.push(detail),
            }
        }
        let others = if self.with_details { format!("{} ", others.join(",")) } else { String::new() };
        let prefix = self.by_task.get(task).map_or(task, String::as_str);
        BytesMut::from(
            format!("{time}{others}{prefix:<width$}    | {message}", width = self.width).as_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_prefixed_with_their_task() {
        let by_task = BTreeMap::from([("t1".to_owned(), "web.1.t1@vm".to_owned())]);
        let mut prefixes = Prefixes { by_task, width: 11, with_time: false, with_details: false };
        let details = "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t1";
        assert_eq!(
            &prefixes.shown(format!("{details} hi there\n").as_bytes())[..],
            b"web.1.t1@vm    | hi there\n"
        );
        prefixes.with_time = true;
        assert_eq!(
            &prefixes.shown(format!("2026 {details} hi\n").as_bytes())[..],
            b"2026 web.1.t1@vm    | hi\n"
        );
    }
}
