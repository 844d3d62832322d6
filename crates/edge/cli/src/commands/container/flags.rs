//! The flags of `run` and `create`, and the request they make.
//!
//! In: flags as typed. Out: the body of `POST /containers/create`. What a value means is the daemon's business; what
//! has the wrong form is refused here, in docker's words.

use crate::CliError;
use crate::commands::{mounts, ports, read};
use clap::Args;
use serde_json::{Map, Value, json};

/// Flags that describe a container.
#[derive(Debug, Clone, Default, Args)]
pub struct CreateFlags {
    /// Assign a name to the container
    #[arg(long)]
    pub name: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = read::variable)]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub env_file: Vec<String>,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "list")]
    pub publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "list")]
    pub expose: Vec<String>,
    /// Bind mount a volume
    #[arg(short, long, value_name = "list")]
    pub volume: Vec<String>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "mount", value_parser = mounts::parse)]
    pub mount: Vec<Value>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "list")]
    pub tmpfs: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    pub user: Option<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "list")]
    pub group_add: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long)]
    pub hostname: Option<String>,
    /// Container NIS domain name
    #[arg(long)]
    pub domainname: Option<String>,
    /// Connect a container to a network
    #[arg(long, visible_alias = "net")]
    pub network: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Set meta data on a container
    #[arg(short, long, value_name = "list", value_parser = read::label)]
    pub label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    pub label_file: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Signal to stop the container
    #[arg(long)]
    pub stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long)]
    pub stop_timeout: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, default_value = "no")]
    pub restart: String,
    /// Write the container ID to the file
    #[arg(long, value_name = "file")]
    pub cidfile: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    pub platform: Option<String>,
    /// Pull image before creating ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub pull: String,
    /// Limits on what the container may use
    #[command(flatten)]
    pub limits: LimitFlags,
    /// What the container may do
    #[command(flatten)]
    pub rights: RightFlags,
    /// Names, logs and health
    #[command(flatten)]
    pub surroundings: SurroundingFlags,
}

/// Flags that limit a container.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// Memory limit
    #[arg(short, long, value_name = "bytes", value_parser = read::size)]
    pub memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = read::size)]
    pub memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "bytes", allow_hyphen_values = true, value_parser = read::swap)]
    pub memory_swap: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = read::cpus)]
    pub cpus: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    pub cpu_shares: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    pub cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    pub cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Disable OOM Killer
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = read::ulimit)]
    pub ulimit: Vec<Value>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = read::size)]
    pub shm_size: Option<i64>,
    /// Optional parent cgroup for the container
    #[arg(long)]
    pub cgroup_parent: Option<String>,
}

/// Flags on privileges and namespaces.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Privileges")]
pub struct RightFlags {
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_drop: Vec<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub privileged: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub read_only: bool,
    /// Security Options
    #[arg(long, value_name = "list")]
    pub security_opt: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "map", value_parser = read::sysctl)]
    pub sysctl: Vec<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "list")]
    pub device: Vec<String>,
    /// PID namespace to use
    #[arg(long)]
    pub pid: Option<String>,
    /// IPC mode to use
    #[arg(long)]
    pub ipc: Option<String>,
    /// UTS namespace to use
    #[arg(long)]
    pub uts: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long)]
    pub cgroupns: Option<String>,
    /// User namespace to use
    #[arg(long)]
    pub userns: Option<String>,
}

/// Flags on names, logs and health.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Names, logs, health")]
pub struct SurroundingFlags {
    /// Set custom DNS servers
    #[arg(long, value_name = "list", value_parser = read::address)]
    pub dns: Vec<String>,
    /// Set DNS options
    #[arg(long, value_name = "list", visible_alias = "dns-opt")]
    pub dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list", value_parser = read::domain)]
    pub dns_search: Vec<String>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "list", value_parser = read::extra_host)]
    pub add_host: Vec<String>,
    /// Logging driver for the container
    #[arg(long)]
    pub log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "list")]
    pub log_opt: Vec<String>,
    /// Health
    #[command(flatten)]
    pub health: HealthFlags,
}

/// Flags of the health check, shared with services.
#[derive(Debug, Clone, Default, Args)]
pub struct HealthFlags {
    /// Command to run to check health
    #[arg(long, value_name = "string")]
    pub health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    pub health_interval: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    pub health_timeout: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "int")]
    pub health_retries: Option<i64>,
    /// Start period for the container to initialize before counting retries (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    pub health_start_period: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = read::duration)]
    pub health_start_interval: Option<i64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
}

impl HealthFlags {
    /// The check they describe; none when no flag was given.
    ///
    /// # Errors
    /// When `--no-healthcheck` stands beside others, or a number is negative.
    pub fn check(&self) -> Result<Option<Value>, CliError> {
        let mut check = Map::new();
        if let Some(command) = &self.health_cmd {
            check.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
        }
        let durations = [
            ("Interval", self.health_interval),
            ("Timeout", self.health_timeout),
            ("StartPeriod", self.health_start_period),
            ("StartInterval", self.health_start_interval),
        ];
        for (name, nanos) in durations {
            if let Some(nanos) = nanos {
                check.insert(name.to_owned(), json!(nanos));
            }
        }
        if let Some(retries) = self.health_retries {
            check.insert("Retries".to_owned(), json!(retries));
        }
        if self.no_healthcheck {
            if !check.is_empty() {
                return Err(CliError::new("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(json!({"Test": ["NONE"]})));
        }
        let numbers = [
            ("interval", self.health_interval),
            ("timeout", self.health_timeout),
            ("retries", self.health_retries),
            ("start-period", self.health_start_period),
            ("start-interval", self.health_start_interval),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| number.is_some_and(|number| number < 0)) {
            return Err(CliError::new(format!("--health-{name} cannot be negative")));
        }
        Ok((!check.is_empty()).then_some(Value::Object(check)))
    }
}

impl CreateFlags {
    /// The request for a container of `image` that runs `command`; `attached` says which streams the user follows.
    ///
    /// # Errors
    /// When a flag has the wrong form or a named file cannot be read.
    pub fn body(&self, image: &str, command: &[String], attached: bool) -> Result<Value, CliError> {
        let ports = ports::parse_all(&self.publish, &self.expose)?;
        let mut body = json!({
            "Image": image,
            "Hostname": self.hostname.clone().unwrap_or_default(),
            "Domainname": self.domainname.clone().unwrap_or_default(),
            "User": self.user.clone().unwrap_or_default(),
            "AttachStdin": attached && self.interactive,
            "AttachStdout": attached,
            "AttachStderr": attached,
            "Tty": self.tty,
            "OpenStdin": self.interactive,
            "StdinOnce": attached && self.interactive,
            "Env": read::environment(&self.env, &self.env_file)?,
            "Labels": read::labels(&self.label, &self.label_file)?,
            "WorkingDir": self.workdir.clone().unwrap_or_default(),
            "ExposedPorts": ports.exposed,
            "HostConfig": self.host_config(ports.bindings)?,
            "NetworkingConfig": {"EndpointsConfig": {}},
        });
        if !command.is_empty() {
            body["Cmd"] = json!(command);
        }
        match self.entrypoint.as_deref() {
            None => {}
            Some("") => body["Entrypoint"] = json!([""]),
            Some(entrypoint) => body["Entrypoint"] = json!([entrypoint]),
        }
        if let Some(signal) = &self.stop_signal {
            body["StopSignal"] = json!(signal);
        }
        if let Some(seconds) = self.stop_timeout {
            body["StopTimeout"] = json!(seconds);
        }
        if let Some(check) = self.surroundings.health.check()? {
            body["Healthcheck"] = check;
        }
        let anonymous: Map<String, Value> = self
            .volume
            .iter()
            .filter(|volume| !volume.contains(':'))
            .map(|at| (at.clone(), json!({})))
            .collect();
        if !anonymous.is_empty() {
            body["Volumes"] = Value::Object(anonymous);
        }
        Ok(body)
    }

    fn host_config(&self, bindings: Value) -> Result<Value, CliError> {
        let (rights, around) = (&self.rights, &self.surroundings);
        rights.check_modes()?;
        let mut host = json!({
            "Binds": self.volume.iter().filter(|volume| volume.contains(':')).map(|v| mounts::absolute(v)).collect::<Vec<_>>(),
            "NetworkMode": self.network.clone().unwrap_or_else(|| "default".to_owned()),
            "PortBindings": bindings,
            "PublishAllPorts": self.publish_all,
            "RestartPolicy": read::restart_policy(&self.restart)?,
            "AutoRemove": self.rm,
            "GroupAdd": self.group_add,
            "CapAdd": rights.cap_add, "CapDrop": rights.cap_drop, "Privileged": rights.privileged,
            "ReadonlyRootfs": rights.read_only, "SecurityOpt": read::security_options(&rights.security_opt)?,
            "Devices": rights.device.iter().map(|text| read::device(text)).collect::<Result<Vec<_>, _>>()?,
            "PidMode": rights.pid.clone().unwrap_or_default(), "IpcMode": rights.ipc.clone().unwrap_or_default(),
            "UTSMode": rights.uts.clone().unwrap_or_default(), "UsernsMode": rights.userns.clone().unwrap_or_default(),
            "CgroupnsMode": rights.cgroupns.clone().unwrap_or_default(),
            "Dns": around.dns, "DnsOptions": around.dns_option, "DnsSearch": around.dns_search,
            "ExtraHosts": around.add_host,
            "LogConfig": {
                "Type": around.log_driver.clone().unwrap_or_default(),
                "Config": read::pairs(&around.log_opt),
            },
        });
        if !self.mount.is_empty() {
            host["Mounts"] = json!(self.mount);
        }
        if !self.tmpfs.is_empty() {
            let split = |text: &String| {
                text.split_once(':').map_or((text.clone(), json!("")), |(a, b)| (a.into(), json!(b)))
            };
            host["Tmpfs"] = Value::Object(self.tmpfs.iter().map(split).collect());
        }
        if !rights.sysctl.is_empty() {
            host["Sysctls"] = read::pairs(&rights.sysctl);
        }
        if self.init {
            host["Init"] = json!(true);
        }
        self.limits.add_to(&mut host);
        Ok(host)
    }
}

impl RightFlags {
    /// What a namespace may be set to is refused here, as docker's client does.
    fn check_modes(&self) -> Result<(), CliError> {
        let modes: [(&str, &str, &Option<String>, &[&str]); 4] = [
            ("pid", "PID", &self.pid, &["host"]),
            ("uts", "UTS", &self.uts, &["host"]),
            ("userns", "USER", &self.userns, &["host"]),
            ("cgroupns", "CGROUP", &self.cgroupns, &["host", "private"]),
        ];
        for (flag, name, mode, known) in modes {
            let mode = mode.as_deref().unwrap_or_default();
            let joins = flag == "pid" && mode.strip_prefix("container:").is_some_and(|of| !of.is_empty());
            if !mode.is_empty() && !known.contains(&mode) && !joins {
                return Err(CliError::new(format!("--{flag}: invalid {name} mode")));
            }
        }
        Ok(())
    }
}

impl LimitFlags {
    fn add_to(&self, host: &mut Value) {
        let numbers = [
            ("Memory", self.memory),
            ("MemoryReservation", self.memory_reservation),
            ("MemorySwap", self.memory_swap),
            ("ShmSize", self.shm_size),
            ("NanoCpus", self.cpus),
            ("CpuShares", self.cpu_shares),
            ("CpuPeriod", self.cpu_period),
            ("CpuQuota", self.cpu_quota),
            ("PidsLimit", self.pids_limit),
            ("OomScoreAdj", self.oom_score_adj),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                host[name] = json!(number);
            }
        }
        if self.oom_kill_disable {
            host["OomKillDisable"] = json!(true);
        }
        let texts = [
            ("CpusetCpus", &self.cpuset_cpus),
            ("CpusetMems", &self.cpuset_mems),
            ("CgroupParent", &self.cgroup_parent),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                host[name] = json!(text);
            }
        }
        if !self.ulimit.is_empty() {
            host["Ulimits"] = json!(self.ulimit);
        }
    }
}
