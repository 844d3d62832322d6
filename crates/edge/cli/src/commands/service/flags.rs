//! The flags that `service create` and `service update` share, written into a service's spec.
//!
//! In: flags as typed and a spec. Out: the spec changed. Fields that no flag names stay as they are, so that the
//! daemon's defaults apply.

use crate::CliError;
use crate::commands::container::flags::HealthFlags;
use crate::commands::read::{self, Words};
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
    #[arg(long, value_name = "command", value_parser = read::words)]
    entrypoint: Option<Words>,
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
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    stop_grace_period: Option<i64>,
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
    #[arg(long, value_name = "decimal", value_parser = read::cpus)]
    limit_cpu: Option<i64>,
    /// Limit Memory
    #[arg(long, value_name = "bytes", value_parser = read::size)]
    limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    limit_pids: Option<i64>,
    /// Reserve CPUs
    #[arg(long, value_name = "decimal", value_parser = read::cpus)]
    reserve_cpu: Option<i64>,
    /// Reserve Memory
    #[arg(long, value_name = "bytes", value_parser = read::size)]
    reserve_memory: Option<i64>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Restart")]
struct Restart {
    /// Restart when condition is met ("none", "on-failure", "any") (default "any")
    #[arg(long)]
    restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    restart_delay: Option<i64>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    restart_window: Option<i64>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Update")]
struct Update {
    /// Maximum number of tasks updated simultaneously (0 to update all at once)
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    update_delay: Option<i64>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    update_monitor: Option<i64>,
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
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    rollback_delay: Option<i64>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    rollback_monitor: Option<i64>,
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

impl SharedFlags {
    /// Writes what was given into `spec`.
    ///
    /// # Errors
    /// When a value has the wrong form, or does not fit the service's mode.
    pub fn write(&self, spec: &mut Value) -> Result<(), CliError> {
        self.write_container(&mut spec["TaskTemplate"]["ContainerSpec"])?;
        let task = &mut spec["TaskTemplate"];
        self.limits.write(task);
        self.restart.write(task);
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
        self.update.write(spec);
        Ok(())
    }

    fn write_container(&self, container: &mut Value) -> Result<(), CliError> {
        set(container, "Dir", self.workdir.clone());
        set(container, "User", self.user.clone());
        set(container, "Hostname", self.hostname.clone());
        set(container, "Command", self.entrypoint.as_ref().map(|command| command.0.clone()));
        set(container, "TTY", self.tty.then_some(true));
        set(container, "ReadOnly", self.read_only.then_some(true));
        set(container, "Init", self.init.then_some(true));
        set(container, "StopGracePeriod", self.stop_grace_period);
        set(container, "StopSignal", self.stop_signal.clone());
        set(container, "Healthcheck", self.health.check()?);
        Ok(())
    }
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
    fn write(&self, task: &mut Value) {
        let any_limit = self.limit_cpu.is_some() || self.limit_memory.is_some() || self.limit_pids.is_some();
        if any_limit {
            let limits = &mut task["Resources"]["Limits"];
            set(limits, "NanoCPUs", self.limit_cpu);
            set(limits, "MemoryBytes", self.limit_memory);
            set(limits, "Pids", self.limit_pids);
        }
        if self.reserve_cpu.is_some() || self.reserve_memory.is_some() {
            let reserved = &mut task["Resources"]["Reservations"];
            set(reserved, "NanoCPUs", self.reserve_cpu);
            set(reserved, "MemoryBytes", self.reserve_memory);
        }
    }
}

impl Restart {
    fn write(&self, task: &mut Value) {
        let (delay, window) = (self.restart_delay, self.restart_window);
        let given = self.restart_condition.is_some() || self.restart_max_attempts.is_some();
        if given || delay.is_some() || window.is_some() {
            let policy = &mut task["RestartPolicy"];
            set(policy, "Condition", self.restart_condition.clone());
            set(policy, "Delay", delay);
            set(policy, "MaxAttempts", self.restart_max_attempts);
            set(policy, "Window", window);
        }
    }
}

/// The flags of one direction: forward or back.
struct Rollout<'a> {
    parallelism: Option<u64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    failure_action: &'a Option<String>,
    max_failure_ratio: Option<f64>,
    order: &'a Option<String>,
}

impl Rollout<'_> {
    fn write(&self, spec: &mut Value, key: &str) {
        let untouched = self.parallelism.is_none()
            && self.max_failure_ratio.is_none()
            && [self.delay, self.monitor].iter().all(Option::is_none)
            && [self.failure_action, self.order].iter().all(|text| text.is_none());
        if untouched {
            return;
        }
        if spec[key].is_null() {
            // A config without parallelism means "all at once"; one at a time is what a user gets who says nothing.
            spec[key] = json!({"Parallelism": 1});
        }
        let config = &mut spec[key];
        set(config, "Parallelism", self.parallelism);
        set(config, "Delay", self.delay);
        set(config, "Monitor", self.monitor);
        set(config, "FailureAction", self.failure_action.clone());
        set(config, "MaxFailureRatio", self.max_failure_ratio);
        set(config, "Order", self.order.clone());
    }
}

impl Update {
    fn write(&self, spec: &mut Value) {
        let forward = Rollout {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            monitor: self.update_monitor,
            failure_action: &self.update_failure_action,
            max_failure_ratio: self.update_max_failure_ratio,
            order: &self.update_order,
        };
        forward.write(spec, "UpdateConfig");
        let back = Rollout {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            monitor: self.rollback_monitor,
            failure_action: &self.rollback_failure_action,
            max_failure_ratio: self.rollback_max_failure_ratio,
            order: &self.rollback_order,
        };
        back.write(spec, "RollbackConfig");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
