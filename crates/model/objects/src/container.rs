//! What a task's container should be: image, process, mounts, rights.
//!
//! In and out: Docker's `ContainerSpec` with every field of API 1.51. Never judges a value: `validate` does.

use std::collections::BTreeMap;

use crate::json::shape;
use crate::names::words;
use crate::{ConfigId, Driver, Labels, Nanos, SecretId};

shape! {
    /// What a task runs.
    pub struct ContainerSpec {
        /// Image reference, with or without tag and digest.
        pub image: String,
        /// Labels of the container; changing them replaces the tasks.
        pub labels: Labels,
        /// Replaces the image's entrypoint.
        pub command: Vec<String>,
        /// Replaces the image's command.
        pub args: Vec<String>,
        /// Host name inside the container; may hold a template.
        pub hostname: String,
        /// Environment as `NAME=value`.
        pub env: Vec<String>,
        /// Working directory.
        pub dir: String,
        /// User (and group) as `name|uid[:group|gid]`.
        pub user: String,
        /// Additional groups.
        pub groups: Vec<String>,
        /// Security options.
        pub privileges: Option<Privileges>,
        /// Whether a small init runs as process 1; `None` is the daemon's default.
        pub init: Option<bool>,
        /// Signal that asks the process to stop.
        pub stop_signal: String,
        /// Whether a terminal is allocated.
        #[serde(rename = "TTY")]
        pub tty: bool,
        /// Whether standard input stays open.
        pub open_stdin: bool,
        /// Whether the root file system is read-only.
        pub read_only: bool,
        /// Mounts of the container.
        pub mounts: Vec<Mount>,
        /// How long to wait between the stop signal and killing; `None` is 10 s.
        pub stop_grace_period: Option<Nanos>,
        /// Health check; `None` is the image's.
        pub healthcheck: Option<HealthConfig>,
        /// Lines for `/etc/hosts` as `IP name…`.
        pub hosts: Vec<String>,
        /// Settings for `/etc/resolv.conf`.
        #[serde(rename = "DNSConfig")]
        pub dns_config: Option<DnsConfig>,
        /// Secrets the task is granted.
        pub secrets: Vec<SecretReference>,
        /// Configs the task is granted.
        pub configs: Vec<ConfigReference>,
        /// Namespaced kernel parameters.
        pub sysctls: BTreeMap<String, String>,
        /// Capabilities beyond the default ones.
        pub capability_add: Vec<String>,
        /// Capabilities taken away.
        pub capability_drop: Vec<String>,
        /// Resource limits of the process.
        pub ulimits: Vec<Ulimit>,
        /// Preference of the out-of-memory killer, -1000 to 1000.
        pub oom_score_adj: i64,
        always {
            /// Isolation technology, of Windows only.
            pub isolation: Isolation,
        }
    }

    /// Security options of a container.
    pub struct Privileges {
        always {
            /// Credentials of Windows containers.
            pub credential_spec: Option<CredentialSpec>,
            /// SELinux labels.
            #[serde(rename = "SELinuxContext")]
            pub selinux_context: Option<SelinuxContext>,
            /// Whether execve may raise rights.
            pub no_new_privileges: bool,
            /// System call filter.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub seccomp: Option<SeccompOpts>,
            /// AppArmor profile.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub app_armor: Option<AppArmorOpts>,
        }
    }

    /// Credentials of Windows containers.
    pub struct CredentialSpec {
        always {
            /// Id of a config that holds them.
            pub config: String,
            /// A file that holds them.
            pub file: String,
            /// A registry value that holds them.
            pub registry: String,
        }
    }

    /// SELinux labels of a container.
    pub struct SelinuxContext {
        always {
            /// Switches labels off.
            pub disable: bool,
            /// User label.
            pub user: String,
            /// Role label.
            pub role: String,
            /// Type label.
            #[serde(rename = "Type")]
            pub kind: String,
            /// Level label.
            pub level: String,
        }
    }

    /// System call filter of a container.
    pub struct SeccompOpts {
        /// `default`, `unconfined` or `custom`.
        pub mode: String,
        /// The custom profile, base 64.
        pub profile: String,
    }

    /// AppArmor profile of a container.
    pub struct AppArmorOpts {
        /// `default` or `disabled`.
        pub mode: String,
    }

    /// Settings for `/etc/resolv.conf`.
    pub struct DnsConfig {
        /// Addresses of name servers.
        pub nameservers: Vec<String>,
        /// Search domains.
        pub search: Vec<String>,
        /// Resolver options.
        pub options: Vec<String>,
    }

    /// A health check.
    pub struct HealthConfig {
        /// Empty (the image's), `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`.
        pub test: Vec<String>,
        /// Between two probes; zero is 30 s.
        pub interval: Nanos,
        /// Limit for one probe; zero is 30 s.
        pub timeout: Nanos,
        /// Failures are not counted this long after the start.
        pub start_period: Nanos,
        /// Between two probes in the start period; zero is 5 s.
        pub start_interval: Nanos,
        /// Failures in a row that make it unhealthy; zero is 3.
        pub retries: i64,
    }

    /// A resource limit of a process.
    pub struct Ulimit {
        /// Name as in `nofile`.
        pub name: String,
        /// Hard limit; -1 is none.
        pub hard: i64,
        /// Soft limit; -1 is none.
        pub soft: i64,
    }

    /// A secret that a task is granted.
    pub struct SecretReference {
        always {
            /// Where the task finds it.
            pub file: Option<FileTarget>,
            /// Id of the secret.
            #[serde(rename = "SecretID")]
            pub secret_id: SecretId,
            /// Name of the secret.
            pub secret_name: String,
        }
    }

    /// A config that a task is granted.
    pub struct ConfigReference {
        /// Where the task finds it.
        pub file: Option<FileTarget>,
        /// Used by the runtime instead of mounted.
        pub runtime: Option<RuntimeTarget>,
        always {
            /// Id of the config.
            #[serde(rename = "ConfigID")]
            pub config_id: ConfigId,
            /// Name of the config.
            pub config_name: String,
        }
    }

    /// A file that a secret or config becomes.
    pub struct FileTarget {
        always {
            /// Path or name of the file.
            pub name: String,
            /// Owner.
            #[serde(rename = "UID")]
            pub uid: String,
            /// Group.
            #[serde(rename = "GID")]
            pub gid: String,
            /// Permission bits.
            pub mode: u32,
        }
    }

    /// Marks a config as used by the runtime.
    pub struct RuntimeTarget {}

    /// A mount of a container.
    pub struct Mount {
        /// Volume name or host path.
        pub source: String,
        /// Path in the container.
        pub target: String,
        /// Whether the container may only read.
        pub read_only: bool,
        /// `consistent`, `cached`, `delegated` or `default`; kept, without effect on Linux.
        pub consistency: String,
        /// Of binds only.
        pub bind_options: Option<BindOptions>,
        /// Of volumes only.
        pub volume_options: Option<VolumeOptions>,
        /// Of images only.
        pub image_options: Option<ImageOptions>,
        /// Of tmpfs only.
        pub tmpfs_options: Option<TmpfsOptions>,
        /// Of cluster volumes only.
        pub cluster_options: Option<ClusterOptions>,
        always {
            /// What is mounted.
            #[serde(rename = "Type")]
            pub kind: MountType,
        }
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        /// `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`.
        pub propagation: String,
        /// Leaves out what is mounted below the source.
        pub non_recursive: bool,
        /// Makes the source when it is missing.
        pub create_mountpoint: bool,
        /// Only the topmost mount is read-only.
        pub read_only_non_recursive: bool,
        /// Fails when not all of it can be read-only.
        pub read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Leaves a new volume empty instead of copying what the image has there.
        pub no_copy: bool,
        /// Labels of the volume when it is made.
        pub labels: Labels,
        /// Directory inside the volume.
        pub subpath: String,
        /// Driver of the volume when it is made.
        pub driver_config: Option<Driver>,
    }

    /// Options of an image mount.
    pub struct ImageOptions {
        /// Directory inside the image.
        pub subpath: String,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Limit in bytes; zero is none.
        pub size_bytes: i64,
        /// Permission bits; zero is 1777.
        pub mode: u32,
        /// Further mount options as `[key]` or `[key, value]`.
        pub options: Vec<Vec<String>>,
    }

    /// Options of a cluster volume mount; there are none yet.
    pub struct ClusterOptions {}
}

words! {
    /// What a mount mounts.
    pub enum MountType("invalid MountType:") {
        /// A volume, made when missing. Docker has no default; an empty type is told apart by `validate`.
        #[default]
        Volume = "volume",
        /// A path of the host.
        Bind = "bind",
        /// Memory.
        Tmpfs = "tmpfs",
        /// A named pipe, of Windows only.
        Npipe = "npipe",
        /// A CSI volume.
        Cluster = "cluster",
        /// The files of an image.
        Image = "image",
    }

    /// Isolation technology, of Windows only.
    pub enum Isolation("invalid isolation:") {
        /// What the daemon prefers.
        #[default]
        Default = "default",
        /// Process isolation.
        Process = "process",
        /// Hyper-V isolation.
        Hyperv = "hyperv",
    }
}
