//! `service logs`: the logs of all tasks, each line with the task it comes from.
//!
//! In: the daemon's frames, whose details name node and task. Out: `web.1.6io77hbuon0q@node    | line`, in docker's form.

use crate::client::Client;
use crate::commands::container::attach::{self, LogFlags};
use crate::{CliError, Outcome, stream};
use bytes::BytesMut;
use clap::Args;
use serde_json::Value;
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

/// What a line begins with, by task; a task that is not known yet is asked for.
struct Prefixes<'a> {
    client: &'a Client,
    known: BTreeMap<String, String>,
    /// Names by id, of nodes and services.
    names: BTreeMap<String, String>,
    /// Digits of the highest slot that there is room for.
    digits: usize,
    how: &'a Logs,
}

impl Logs {
    /// Prints the logs.
    pub(crate) async fn run(self, client: &Client) -> Outcome {
        let name = &self.name;
        let (path, spec, replicas) = match client.get(format!("/services/{name}")).value().await {
            Ok(service) => {
                let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(0);
                (format!("/services/{name}/logs"), service["Spec"]["TaskTemplate"].clone(), replicas)
            }
            Err(error) if error.status == Some(404) => {
                let task = client.get(format!("/tasks/{name}")).value().await;
                let task = task.map_err(|_| CliError::new(format!("no such task or service: {name}")))?;
                (format!("/tasks/{name}/logs"), task["Spec"].clone(), task["Slot"].as_u64().unwrap_or(0))
            }
            Err(error) => return Err(error),
        };
        if spec["ContainerSpec"]["TTY"] == Value::Bool(true) {
            if !self.raw {
                return Err(CliError::new("tty service logs only supported with --raw"));
            }
            return attach::show(self.flags.call(client, &path)?.send().await?, true).await;
        }
        if self.raw {
            return attach::show(self.flags.call(client, &path)?.send().await?, false).await;
        }
        let digits = replicas.to_string().len();
        let (known, names) = (BTreeMap::new(), BTreeMap::new());
        let mut prefixes = Prefixes { client, known, names, digits, how: &self };
        let flags = LogFlags { details: true, ..self.flags.clone() };
        let frames = attach::frames(flags.call(client, &path)?.send().await?.into_body());
        let copied = stream::copy_framed_as(frames, async |line| {
            let line = Line::of(&line, self.flags.timestamps);
            line.shown(&prefixes.of(&line.task).await, self.flags.details)
        });
        copied.await.map_err(|error| CliError::new(error.to_string()))
    }
}

impl Prefixes<'_> {
    async fn of(&mut self, task: &str) -> String {
        if let Some(prefix) = self.known.get(task) {
            return prefix.clone();
        }
        let prefix = match self.client.get(format!("/tasks/{task}")).value().await {
            Ok(found) => self.prefix(&found).await,
            // Its service was removed while its last lines were on the way.
            Err(_) => task.to_owned(),
        };
        self.known.insert(task.to_owned(), prefix.clone());
        prefix
    }

    async fn prefix(&mut self, task: &Value) -> String {
        let text = |key: &str| task[key].as_str().unwrap_or_default();
        let node = self.name("nodes", text("NodeID"), "/Description/Hostname").await;
        let service = self.name("services", text("ServiceID"), "/Spec/Name").await;
        let slot = task["Slot"].as_u64().unwrap_or(0).to_string();
        let kept = if self.how.no_trunc { usize::MAX } else { ID_SHOWN };
        let id: String = text("ID").chars().take(kept).collect();
        let id = if self.how.no_task_ids { String::new() } else { format!(".{id}") };
        let room = " ".repeat(self.digits.saturating_sub(slot.len()));
        format!("{service}.{slot}{id}@{node}{room}")
    }

    /// The name at `pointer` of an object; its id when names are not wanted or it is gone.
    async fn name(&mut self, kind: &str, id: &str, pointer: &str) -> String {
        if self.how.no_resolve || id.is_empty() {
            return id.to_owned();
        }
        if let Some(name) = self.names.get(id) {
            return name.clone();
        }
        let found = self.client.get(format!("/{kind}/{id}")).value().await.unwrap_or_default();
        let name = found.pointer(pointer).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.unwrap_or(id).to_owned();
        self.names.insert(id.to_owned(), name.clone());
        name
    }
}

/// A line of a log in parts: `[time ]details message`.
#[derive(Debug)]
struct Line {
    /// With a blank behind it; empty when no time was asked for.
    time: String,
    task: String,
    others: Vec<String>,
    message: BytesMut,
}

impl Line {
    fn of(bytes: &[u8], with_time: bool) -> Line {
        let split = |bytes: &[u8]| -> (String, BytesMut) {
            let at = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
            let rest = bytes.get(at + 1..).unwrap_or_default();
            (String::from_utf8_lossy(&bytes[..at]).into_owned(), BytesMut::from(rest))
        };
        let (time, rest) = if with_time { split(bytes) } else { (String::new(), BytesMut::from(bytes)) };
        let time = if with_time { format!("{time} ") } else { time };
        let (details, message) = split(&rest);
        let mut line = Line { time, task: String::new(), others: Vec::new(), message };
        for detail in details.split(',') {
            match detail.split_once('=') {
                Some(("com.docker.swarm.task.id", id)) => line.task = id.to_owned(),
                Some((key, _)) if key.starts_with("com.docker.swarm.") => {}
                _ => line.others.push(detail.to_owned()),
            }
        }
        line
    }

    /// `[time ]prefix    | [other details ]message`.
    fn shown(&self, prefix: &str, with_details: bool) -> BytesMut {
        let others = if with_details { format!("{} ", self.others.join(",")) } else { String::new() };
        let mut out = BytesMut::from(format!("{}{prefix}    | {others}", self.time).as_bytes());
        out.extend_from_slice(&self.message);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_prefixed_with_their_task() {
        let details =
            "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t1,a=b";
        let mut plain = format!("{details} hi ").into_bytes();
        plain.extend_from_slice(b"\xff\n");
        let line = Line::of(&plain, false);
        assert_eq!(line.task, "t1");
        assert_eq!(&line.shown("web.1.t1@vm", false)[..], b"web.1.t1@vm    | hi \xff\n");
        let line = Line::of(format!("2026 {details} hi\n").as_bytes(), true);
        assert_eq!(&line.shown("web.1.t1@vm", true)[..], b"2026 web.1.t1@vm    | a=b hi\n");
    }
}
