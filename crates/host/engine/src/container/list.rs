//! Lists containers: which, in which order, and how their state reads.

use std::sync::Arc;

use docker::{ContainerSummary, Filters, Port, SummaryHostConfig, SummaryNetworkSettings};
use objects::{Nanos, Timestamp};

use super::record::{Record, Run};
use super::{Container, inspect};
use crate::engine::{Engine, Inner, now};
use crate::error::EngineError;
use crate::watch::Status;

/// Source: moby, `daemon/list.go`, `acceptedPsFilterTags`.
const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
const HEALTHS: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];

/// Which containers are listed.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that don't run.
    pub all: bool,
    /// Only the newest so many, running or not.
    pub limit: Option<usize>,
    /// Count writable layers, which may take a while.
    pub size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

impl Engine {
    /// Lists containers, newest first.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>, EngineError> {
        let chosen = choose(&self.inner, &options)?;
        let mut rows = Vec::with_capacity(chosen.len());
        let now = now();
        for (container, record) in chosen {
            let mut row = summary(&self.inner, &record, now);
            if options.size {
                (row.size_rw, row.size_root_fs) = inspect::sizes(&self.inner, &container).await?;
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

fn choose(inner: &Inner, options: &ListOptions) -> Result<Vec<(Arc<Container>, Record)>, EngineError> {
    let filters = &options.filters;
    let invalid = |error: docker::filters::FilterError| EngineError::invalid(error.to_string());
    filters.validate(&FILTERS).map_err(invalid)?;
    filters.validate_values("status", &STATUSES).map_err(invalid)?;
    filters.validate_values("health", &HEALTHS).map_err(invalid)?;
    let is_task = filters.boolean("is-task").map_err(invalid)?;
    let exited: Vec<i64> = filters
        .get("exited")
        .map(|text| text.parse().map_err(|_| EngineError::invalid(format!("invalid filter 'exited={text}'"))))
        .collect::<Result<_, _>>()?;
    let created_of = |field: &str| -> Result<Option<Timestamp>, EngineError> {
        filters.get(field).last().map(|id| Ok(inner.registry.find(id)?.live().record.created)).transpose()
    };
    let (before, since) = (created_of("before")?, created_of("since")?);
    let ancestors = ancestors(inner, filters);
    // Naming a status, or how many, or what came before, is asking for containers that don't run as well.
    let all = options.all
        || options.limit.is_some()
        || ["status", "exited", "before", "since"].iter().any(|field| filters.contains(field));
    let mut chosen: Vec<_> = inner
        .registry
        .all()
        .into_iter()
        .map(|container| {
            let record = container.record();
            (container, record)
        })
        .filter(|(_, record)| {
            let run = &record.run;
            let is_running = matches!(run.status, Status::Running | Status::Paused | Status::Restarting);
            (all || is_running)
                && before.is_none_or(|before| record.created < before)
                && since.is_none_or(|since| record.created > since)
                && (exited.is_empty() || (run.status == Status::Exited && exited.contains(&run.exit_code)))
                && is_task
                    .is_none_or(|wanted| wanted == record.config.labels.contains_key("com.docker.swarm.task"))
                && ancestors.as_ref().is_none_or(|ids| ids.contains(&record.image_id))
                && passes(filters, record)
        })
        .collect();
    chosen.sort_by(|(_, a), (_, b)| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    chosen.truncate(options.limit.unwrap_or(usize::MAX));
    Ok(chosen)
}

/// Ids of the images that `ancestor` names; `None` without such a filter. Unknown images have no containers.
fn ancestors(inner: &Inner, filters: &Filters) -> Option<Vec<String>> {
    let resolve = |name: &str| inner.config.images.resolve(name).ok().map(|id| id.to_string());
    filters.contains("ancestor").then(|| filters.get("ancestor").filter_map(resolve).collect())
}

/// The filters that look at the record alone.
fn passes(filters: &Filters, record: &Record) -> bool {
    let labels = &record.config.labels;
    let health = health_word(&record.run);
    let by_volume = !filters.contains("volume")
        || filters.get("volume").any(|wanted| {
            record.mounts.iter().any(|m| m.volume() == Some(wanted) || m.destination == wanted)
        });
    let by_network = !filters.contains("network")
        || filters.get("network").any(|wanted| {
            record.networks.contains_key(wanted)
                || record.networks.values().any(|settings| settings.network_id.starts_with(wanted))
        });
    filters.matches_prefix("id", &record.id)
        && (filters.matches_pattern("name", &record.name)
            || filters.matches_pattern("name", &format!("/{}", record.name)))
        && filters.matches_labels("label", labels)
        && !(filters.contains("label!") && filters.matches_labels("label!", labels))
        && filters.matches_exactly("status", record.run.status.as_str())
        && filters.matches_exactly("health", health)
        && filters.matches_exactly("isolation", "default")
        && by_volume
        && by_network
        && by_port(filters, "publish", &published(record))
        && by_port(filters, "expose", &exposed(record))
}

fn health_word(run: &Run) -> &'static str {
    run.health.as_ref().map_or("none", |health| health.status().as_str())
}

fn published(record: &Record) -> Vec<String> {
    record.host_config.port_bindings.keys().cloned().collect()
}

fn exposed(record: &Record) -> Vec<String> {
    record.config.exposed_ports.keys().cloned().collect()
}

/// `80`, `80/udp` or `80-90/tcp` among the container's ports.
fn by_port(filters: &Filters, field: &str, ports: &[String]) -> bool {
    let expand = |text: &str| docker::port::expand(text).unwrap_or_default();
    !filters.contains(field)
        || filters.get(field).any(|wanted| {
            let wanted = expand(wanted);
            ports.iter().flat_map(|port| expand(port)).any(|port| wanted.contains(&port))
        })
}

fn summary(inner: &Inner, record: &Record, now: Timestamp) -> ContainerSummary {
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: shown_image(inner, record),
        image_id: record.image_id.clone(),
        command: command_text(&record.command()),
        created: record.created.0.div_euclid(1_000_000_000),
        ports: ports(record),
        size_rw: None,
        size_root_fs: None,
        labels: record.config.labels.clone(),
        state: record.run.status.as_str().to_owned(),
        status: status_text(&record.run, now),
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: inspect::endpoints(record) },
        mounts: inspect::mount_points(inner, record),
    }
}

/// The name it was created from as long as that still means its image, else the image's id.
fn shown_image(inner: &Inner, record: &Record) -> String {
    match inner.config.images.resolve(record.image_name()) {
        Ok(id) if id.to_string() == record.image_id => record.image_name().to_owned(),
        _ => record.image_id.clone(),
    }
}

fn command_text(command: &[String]) -> String {
    // Docker quotes arguments with spaces since 1.6.
    let quote = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    command.iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn ports(record: &Record) -> Vec<Port> {
    let Some(attachment) = &record.run.attachment else { return Vec::new() };
    let mut ports: Vec<Port> = attachment
        .ports
        .iter()
        .map(|bound| Port {
            ip: bound.host_ip.to_string(),
            private_port: bound.container_port,
            public_port: bound.host_port,
            protocol: bound.protocol.to_string(),
        })
        .collect();
    for port in exposed(record).iter().flat_map(|key| docker::port::expand(key).unwrap_or_default()) {
        let protocol = port.protocol.as_str();
        if !ports.iter().any(|known| known.private_port == port.port && known.protocol == protocol) {
            ports.push(Port { private_port: port.port, protocol: protocol.into(), ..Default::default() });
        }
    }
    ports
}

/// Source: moby, `container/state.go`, `String`.
fn status_text(run: &Run, now: Timestamp) -> String {
    let ago = |at: Timestamp| docker::units::human_duration(Nanos(now.since(at).0.max(0)));
    match run.status {
        Status::Created => "Created".to_owned(),
        Status::Paused => format!("Up {} (Paused)", ago(run.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", run.exit_code, ago(run.finished_at)),
        Status::Running => {
            let health = match run.health.as_ref().map(|health| health.status()) {
                None => String::new(),
                Some(lifecycle::health::Status::Starting) => " (health: starting)".to_owned(),
                Some(status) => format!(" ({})", status.as_str()),
            };
            format!("Up {}{health}", ago(run.started_at))
        }
        Status::Removing | Status::Removed => "Removal In Progress".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", run.exit_code, ago(run.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::health::{Health, Outcome, Schedule};

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn states_read_as_dockers_do() {
        let mut health = Health::started(Timestamp(SECOND));
        let schedule = Schedule::new(Nanos(0), Nanos(0), Nanos(0), Nanos(0), 0);
        let run = |status, health: Option<&Health>| Run {
            status,
            started_at: Timestamp(SECOND),
            finished_at: Timestamp(61 * SECOND),
            exit_code: 3,
            health: health.cloned(),
            ..Run::default()
        };
        let now = Timestamp(181 * SECOND);
        let check = |run: &Run, text: &str| assert_eq!(status_text(run, now), text);
        check(&run(Status::Created, None), "Created");
        check(&run(Status::Running, None), "Up 3 minutes");
        check(&run(Status::Running, Some(&health)), "Up 3 minutes (health: starting)");
        check(&run(Status::Exited, None), "Exited (3) 2 minutes ago");
        check(&run(Status::Restarting, None), "Restarting (3) 2 minutes ago");
        check(&run(Status::Paused, None), "Up 3 minutes (Paused)");
        let start = Timestamp(2 * SECOND);
        health.record(&schedule, Outcome { start, end: start, exit_code: 0, output: String::new() });
        check(&run(Status::Running, Some(&health)), "Up 3 minutes (healthy)");
    }

    #[test]
    fn commands_with_spaces_are_quoted() {
        let words = ["sh", "-c", "echo hi"].map(str::to_owned);
        assert_eq!(command_text(&words), "sh -c 'echo hi'");
    }
}
