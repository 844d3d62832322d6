//! The flags that `service create` and `service update` share, written into a service's spec.
//!
//! In: flags as typed and a spec. Out: the spec changed. Fields that no flag names stay as they are, so that the
//! daemon's defaults apply.

use crate::CliError;
use crate::commands::container::flags::HealthFlags;
use crate::commands::read;
use clap::Args;
use serde_json::{Value, json};

/// Flags of both commands.
#[derive(Debug, Clone, Default, Args)]
pub struct SharedFlags {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    pub detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    pub quiet: bool,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    user: Option<String>,
    /// Container hostname
    #[arg(long)]
    hostname: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Use an init inside each service container to forward signals and reap processes
    #[arg(long)]
    init: bool,
    /// Send registry authentication details to swarm agents
    #[arg(long)]
    pub with_registry_auth: bool,
    /// Do not query the registry to resolve image digest and supported platforms
    #[arg(long)]
    pub no_resolve_image: bool,
    /// Number of tasks
    #[arg(long)]
    pub replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long)]
    replicas_max_per_node: Option<u64>,
    /// Endpoint mode (vip or dnsrr)
    #[arg(long)]
    endpoint_mode: Option<String>,
    /// Logging driver for service
    #[arg(long)]
    log_driver: Option<String>,
    /// Logging driver options
    #[arg(long, value_name = "list")]
    log_opt: Vec<String>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)
    #[arg(long, value_name = "duration")]
    stop_grace_period: Option<String>,
    /// Signal to stop the container
    #[arg(long)]
    stop_signal: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    restart: Restart,
    #[command(flatten)]
    update: Update,
    #[command(flatten)]
    health: HealthFlags,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Resources")]
struct Limits {
    /// Limit CPUs
    #[arg(long, value_name = "decimal")]
    limit_cpu: Option<String>,
    /// Limit Memory
    #[arg(long, value_name = "bytes")]
    limit_memory: Option<String>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    limit_pids: Option<i64>,
    /// Reserve CPUs
    #[arg(long, value_name = "decimal")]
    reserve_cpu: Option<String>,
    /// Reserve Memory
    #[arg(long, value_name = "bytes")]
    reserve_memory: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Restart")]
struct Restart {
    /// Restart when condition is met ("none", "on-failure", "any") (default "any")
    #[arg(long)]
    restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "duration")]
    restart_delay: Option<String>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration")]
    restart_window: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Update")]
struct Update {
    /// Maximum number of tasks updated simultaneously (0 to update all at once)
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration")]
    update_delay: Option<String>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration")]
    update_monitor: Option<String>,
    /// Action on update failure ("pause", "continue", "rollback")
    #[arg(long)]
    update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update (default 0)
    #[arg(long)]
    update_max_failure_ratio: Option<f64>,
    /// Update order ("start-first", "stop-first")
    #[arg(long)]
    update_order: Option<String>,
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once)
    #[arg(long)]
    rollback_parallelism: Option<u64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration")]
    rollback_delay: Option<String>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration")]
    rollback_monitor: Option<String>,
    /// Action on rollback failure ("pause", "continue")
    #[arg(long)]
    rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback (default 0)
    #[arg(long)]
    rollback_max_failure_ratio: Option<f64>,
    /// Rollback order ("start-first", "stop-first")
    #[arg(long)]
    rollback_order: Option<String>,
}

/// Writes a value if the flag was given.
fn set(place: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        place[key] = value.into();
    }
}

fn nanos(text: &Option<String>) -> Result<Option<i64>, CliError> {
    text.as_deref().map(read::duration).transpose()
}

impl SharedFlags {
    /// Writes what was given into `spec`.
    ///
    /// # Errors
    /// When a value has the wrong form, or does not fit the service's mode.
    pub fn write(&self, spec: &mut Value) -> Result<(), CliError> {
        self.write_container(&mut spec["TaskTemplate"]["ContainerSpec"])?;
        let task = &mut spec["TaskTemplate"];
        self.limits.write(task)?;
        self.restart.write(task)?;
        if self.log_driver.is_some() || !self.log_opt.is_empty() {
            task["LogDriver"] = json!({"Name": self.log_driver, "Options": read::pairs(&self.log_opt)});
        }
        if let Some(most) = self.replicas_max_per_node {
            task["Placement"]["MaxReplicas"] = json!(most);
        }
        if let Some(replicas) = self.replicas {
            scale(spec, replicas)?;
        }
        if let Some(mode) = &self.endpoint_mode {
            spec["EndpointSpec"]["Mode"] = json!(mode);
        }
        self.update.write(spec)
    }

    fn write_container(&self, container: &mut Value) -> Result<(), CliError> {
        set(container, "Dir", self.workdir.clone());
        set(container, "User", self.user.clone());
        set(container, "Hostname", self.hostname.clone());
        set(container, "Command", self.entrypoint.as_ref().map(|command| words(command)));
        set(container, "TTY", self.tty.then_some(true));
        set(container, "ReadOnly", self.read_only.then_some(true));
        set(container, "Init", self.init.then_some(true));
        set(container, "StopGracePeriod", nanos(&self.stop_grace_period)?);
        set(container, "StopSignal", self.stop_signal.clone());
        set(container, "Healthcheck", self.health.check()?);
        Ok(())
    }
}

/// Splits at blanks; quotes keep words together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Sets the number of replicas of a replicated service.
///
/// # Errors
/// When the service has another mode.
pub fn scale(spec: &mut Value, replicas: u64) -> Result<(), CliError> {
    if spec["Mode"].get("Replicated").is_some() {
        spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
        return Ok(());
    }
    Err(CliError::new("replicas can only be used with replicated or replicated-job mode"))
}

impl Limits {
    fn write(&self, task: &mut Value) -> Result<(), CliError> {
        let cpus = |text: &Option<String>| text.as_deref().map(read::cpus).transpose();
        let bytes = |text: &Option<String>| text.as_deref().map(read::size).transpose();
        let any_limit = self.limit_cpu.is_some() || self.limit_memory.is_some() || self.limit_pids.is_some();
        if any_limit {
            let limits = &mut task["Resources"]["Limits"];
            set(limits, "NanoCPUs", cpus(&self.limit_cpu)?);
            set(limits, "MemoryBytes", bytes(&self.limit_memory)?);
            set(limits, "Pids", self.limit_pids);
        }
        if self.reserve_cpu.is_some() || self.reserve_memory.is_some() {
            let reserved = &mut task["Resources"]["Reservations"];
            set(reserved, "NanoCPUs", cpus(&self.reserve_cpu)?);
            set(reserved, "MemoryBytes", bytes(&self.reserve_memory)?);
        }
        Ok(())
    }
}

impl Restart {
    fn write(&self, task: &mut Value) -> Result<(), CliError> {
        let delay = nanos(&self.restart_delay)?;
        let window = nanos(&self.restart_window)?;
        let given = self.restart_condition.is_some() || self.restart_max_attempts.is_some();
        if given || delay.is_some() || window.is_some() {
            let policy = &mut task["RestartPolicy"];
            set(policy, "Condition", self.restart_condition.clone());
            set(policy, "Delay", delay);
            set(policy, "MaxAttempts", self.restart_max_attempts);
            set(policy, "Window", window);
        }
        Ok(())
    }
}

/// The flags of one direction: forward or back.
struct Rollout<'a> {
    parallelism: Option<u64>,
    delay: &'a Option<String>,
    monitor: &'a Option<String>,
    failure_action: &'a Option<String>,
    max_failure_ratio: Option<f64>,
    order: &'a Option<String>,
}

impl Rollout<'_> {
    fn write(&self, spec: &mut Value, key: &str) -> Result<(), CliError> {
        let texts = [self.delay, self.monitor, self.failure_action, self.order];
        let untouched = self.parallelism.is_none()
            && self.max_failure_ratio.is_none()
            && texts.iter().all(|text| text.is_none());
        if untouched {
            return Ok(());
        }
        if spec[key].is_null() {
            // A config without parallelism means "all at once"; one at a time is what a user gets who says nothing.
            spec[key] = json!({"Parallelism": 1});
        }
        let config = &mut spec[key];
        set(config, "Parallelism", self.parallelism);
        set(config, "Delay", nanos(self.delay)?);
        set(config, "Monitor", nanos(self.monitor)?);
        set(config, "FailureAction", self.failure_action.clone());
        set(config, "MaxFailureRatio", self.max_failure_ratio);
        set(config, "Order", self.order.clone());
        Ok(())
    }
}

impl Update {
    fn write(&self, spec: &mut Value) -> Result<(), CliError> {
        let forward = Rollout {
            parallelism: self.update_parallelism,
            delay: &self.update_delay,
            monitor: &self.update_monitor,
            failure_action: &self.update_failure_action,
            max_failure_ratio: self.update_max_failure_ratio,
            order: &self.update_order,
        };
        forward.write(spec, "UpdateConfig")?;
        let back = Rollout {
            parallelism: self.rollback_parallelism,
            delay: &self.rollback_delay,
            monitor: &self.rollback_monitor,
            failure_action: &self.rollback_failure_action,
            max_failure_ratio: self.rollback_max_failure_ratio,
            order: &self.rollback_order,
        };
        back.write(spec, "RollbackConfig")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("sh -c 'a b' \"\" c"), ["sh", "-c", "a b", "", "c"]);
    }

    #[test]
    fn only_given_flags_are_written() {
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {}}, "Mode": {"Replicated": {}}});
        let flags = SharedFlags { replicas: Some(3), ..SharedFlags::default() };
        flags.write(&mut spec).expect("the service is replicated");
        assert_eq!(
            spec,
            json!({"TaskTemplate": {"ContainerSpec": {}}, "Mode": {"Replicated": {"Replicas": 3}}})
        );
        let mut global = json!({"Mode": {"Global": {}}});
        assert!(flags.write(&mut global).is_err());
    }
}
