//! Says everything there is to say about a container or an extra process in one, as plain data.
//!
//! In: what the engine decided. Out: values that the shim keeps on disk and hands to `create` and `exec`.
//! Never looks at the machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::seccomp;

/// A container: its root, its namespaces, its limits and its first process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The root file system, mounted by the container's init in its own mount namespace.
    pub root: Root,
    /// Which of the namespaces are the container's own.
    pub namespaces: Namespaces,
    /// The name that `uname` shows. Ignored when the UTS namespace is not the container's own.
    pub hostname: String,
    /// The NIS domain name; empty leaves the kernel's.
    #[serde(default)]
    pub domainname: String,
    /// Everything that gets mounted on the root, in this order, `/proc` and `/dev` included.
    /// [`crate::defaults::mounts`] gives Docker's list with the user's mounts merged in.
    pub mounts: Vec<Mount>,
    /// Paths that are hidden: files by `/dev/null`, directories by an empty read-only tmpfs. Missing ones are skipped.
    #[serde(default)]
    pub masked_paths: Vec<String>,
    /// Paths that are remounted read-only. Missing ones are skipped.
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    /// Device nodes beyond the default ones (`null`, `zero`, `full`, `random`, `urandom`, `tty`), which always exist.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Access to devices, in order; later rules win. [`crate::defaults::device_rules`] gives Docker's list.
    pub device_rules: Vec<DeviceRule>,
    /// Kernel parameters by their dotted name (`net.ipv4.ip_forward`), written inside the namespaces.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Where the container is accounted for, and its limits.
    pub cgroup: CgroupSpec,
    /// How the container reaches the network.
    pub network: Network,
    /// The first process.
    pub process: ProcessSpec,
    /// Whether a small init of ours is process 1, which forwards signals and reaps orphans (`docker run --init`).
    #[serde(default)]
    pub init: bool,
}

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Read-only layers, the topmost first. Empty means that `upper` alone is the root, bound to `merged`.
    pub lower: Vec<PathBuf>,
    /// The container's own writable layer.
    pub upper: PathBuf,
    /// The working directory of overlayfs: empty, on the same file system as `upper`.
    pub work: PathBuf,
    /// An existing directory to mount on. Nothing shows there outside the container's mount namespace.
    pub merged: PathBuf,
    /// Whether the container may not write to its root.
    #[serde(default)]
    pub readonly: bool,
}

/// Whose namespace a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// A new one of its own.
    #[default]
    New,
    /// That of the host.
    Host,
    /// An existing one, such as `/proc/123/ns/ipc` of another container.
    Path(PathBuf),
}

/// The namespaces of a container besides mount, which is always new, and network, which [`Network`] says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Process ids. `Path` makes the container's init an ordinary process of the other container.
    pub pid: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// The view of the cgroup tree.
    pub cgroup: Namespace,
}

/// One mount on the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the root. Created when missing: as a file for a bound file, else as a directory.
    /// Symbolic links in it are followed inside the root only.
    pub target: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Restrictions of the mount.
    #[serde(default)]
    pub flags: MountFlags,
}

/// What a [`Mount`] puts in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host; it must exist.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// What is bound inside `path`, symbolic links followed inside it only; empty is `path` itself.
        #[serde(default)]
        subpath: PathBuf,
        /// Whether the mounts below the source come along.
        recursive: bool,
        /// Whether later mounts travel between host and container.
        propagation: Propagation,
    },
    /// A new file system in memory. `data` holds the file system's own options (`size=64m,mode=1777`).
    Tmpfs {
        /// Options other than flags, comma separated; sizes may end in `k`, `m`, `g` or `%`.
        data: String,
    },
    /// `/proc` of the container's PID namespace.
    Proc,
    /// The tmpfs for `/dev` together with its default nodes and links.
    Dev,
    /// A new instance of pseudo terminals.
    Devpts,
    /// POSIX message queues of the container's IPC namespace.
    Mqueue,
    /// `/sys` of the container's network namespace.
    Sysfs,
    /// The cgroup tree as seen from the container: cgroup2, or one directory per mounted v1 controller.
    Cgroup,
}

/// Restrictions of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFlags {
    /// No writing.
    pub readonly: bool,
    /// With `readonly` on a recursive bind: the mounts below stay writable (Docker's `ReadOnlyNonRecursive`).
    pub readonly_top_only: bool,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes have no effect.
    pub nodev: bool,
    /// Programs cannot be executed.
    pub noexec: bool,
    /// Access times are never written.
    pub noatime: bool,
    /// Access times are always written (`strictatime`); without either they are `relatime`.
    pub strictatime: bool,
}

/// How mounts made later travel between a bind's source and its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all, for this mount.
    Private,
    /// Not at all, also below it. Docker's default.
    #[default]
    Rprivate,
    /// From the host into the container, for this mount.
    Slave,
    /// From the host into the container, also below it.
    Rslave,
    /// Both ways, for this mount.
    Shared,
    /// Both ways, also below it.
    Rshared,
}

/// A device node in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path inside the root, usually below `/dev`.
    pub path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// One rule of the device cgroup. Without `kind`, `major` or `minor` it covers all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether it grants or takes away.
    pub allow: bool,
    /// The kind of device; `None` is both.
    pub kind: Option<DeviceKind>,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making nodes.
    pub mknod: bool,
}

/// A place in the cgroup tree, with limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Absolute path below each controller's mount, such as `/skep`. Made when missing.
    pub parent: String,
    /// Name of the container's own group: no slash.
    pub name: String,
    /// Limits; what is `None` stays unlimited.
    #[serde(default)]
    pub limits: Limits,
}

/// Limits of a container; names and meanings as in Docker's `HostConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Hard limit of memory.
    pub memory_bytes: Option<u64>,
    /// Memory plus swap, as Docker's `MemorySwap`: -1 is unlimited, `None` is twice the memory.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit of memory.
    pub memory_reservation_bytes: Option<u64>,
    /// 0 to 100; v1 only.
    pub memory_swappiness: Option<u64>,
    /// Whether the kernel may not kill on out of memory; v1 only.
    pub oom_kill_disable: bool,
    /// CPU time per period; negative is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Length of a period; the kernel's 100 ms when `None`.
    pub cpu_period_us: Option<u64>,
    /// Relative share, 2 to 262144, 1024 is the usual one.
    pub cpu_shares: Option<u64>,
    /// CPUs that may be used, such as `0-2,7`; empty is all.
    pub cpuset_cpus: String,
    /// Memory nodes that may be used; empty is all.
    pub cpuset_mems: String,
    /// Processes and threads; zero or negative is unlimited.
    pub pids_max: Option<i64>,
    /// Relative share of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
}

impl Limits {
    /// Sets quota and period for `nano_cpus` billionths of a CPU.
    ///
    /// Source: moby, `daemon/daemon_unix.go`: a period of 100 ms.
    pub fn set_nano_cpus(&mut self, nano_cpus: u64) {
        const PERIOD_US: u64 = 100_000;
        self.cpu_period_us = Some(PERIOD_US);
        let quota_us = nano_cpus.saturating_mul(PERIOD_US) / 1_000_000_000;
        self.cpu_quota_us = Some(i64::try_from(quota_us).unwrap_or(i64::MAX));
    }
}

/// How a container reaches the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The host's own network namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// A namespace with these interfaces besides loopback.
    Interfaces(Vec<Interface>),
    /// The namespace of another container, such as `/proc/123/ns/net`.
    Path(PathBuf),
}

/// One end of a veth pair inside the container, the other on a bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the host's end, at most 15 bytes.
    pub host_name: String,
    /// Bridge on the host that gets the host's end; `None` leaves it alone.
    pub bridge: Option<String>,
    /// There is no pair: the interface shares the wire of a link of the host.
    #[serde(default)]
    pub macvlan: Option<MacvlanParent>,
    /// A pinned network namespace in which the host's end and its bridge lie; `None` is the creator's own.
    #[serde(default)]
    pub namespace: Option<PathBuf>,
    /// The host's end exchanges no frames with other isolated ports of the bridge.
    #[serde(default)]
    pub isolated: bool,
    /// Name inside the container, such as `eth0`.
    pub name: String,
    /// Hardware address inside the container; `None` lets the kernel choose.
    pub mac: Option<[u8; 6]>,
    /// Addresses inside the container.
    pub addresses: Vec<Address>,
    /// Next hops of the default routes, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// Largest packet of both ends; 0 leaves the kernel's 1500.
    pub mtu: u32,
}

/// How an interface shares the wire of a link of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacvlanParent {
    /// The link's name.
    pub link: String,
    /// Which of its siblings the interface reaches.
    pub mode: MacvlanMode,
}

/// Which of its siblings an interface reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// None.
    Private,
    /// All, by way of a switch that sends back.
    Vepa,
    /// All.
    Bridge,
    /// It is the only one.
    Passthru,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the prefix in bits.
    pub prefix_len: u8,
}

/// An extra process in a running container (`docker exec`, health probes).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Process id of the container's init, as the host sees it.
    pub target_pid: i32,
    /// When that process started, from [`crate::start_time`]; guards against a reused process id.
    pub target_start_time: Option<u64>,
    /// The process.
    pub process: ProcessSpec,
}

/// A process: what runs, as whom, with which rights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments; never empty. A program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`. `HOME` is added from the user's entry in `/etc/passwd` when missing.
    pub env: Vec<String>,
    /// Working directory; made when missing. Empty is `/`.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, `uid:gid` and mixtures, resolved by the container's own files. Empty is root.
    pub user: String,
    /// Supplementary groups by name or number, besides those that `/etc/group` gives the user.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What a privileged process may do; a process of another user keeps only the bounding set, as with Docker.
    pub capabilities: Capabilities,
    /// Whether programs cannot gain rights by set-user-id bits.
    pub no_new_privileges: bool,
    /// Resource limits; others are inherited.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// A terminal of this size; `None` gives pipes.
    #[serde(default)]
    pub terminal: Option<WindowSize>,
    /// Whether standard input is open. Without it, it is `/dev/null`. A terminal always has one.
    pub stdin: bool,
    /// How willingly the kernel kills it, -1000 to 1000; `None` is 0.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Which system calls it may use.
    pub seccomp: seccomp::Profile,
}

/// A set of capabilities, one bit per number as in `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub u64);

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// A limit set with `setrlimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Docker's name without prefix: `nofile`, `nproc`, `core`, … See [`crate::rlimit_number`].
    pub name: String,
    /// The limit in force; `u64::MAX` is unlimited.
    pub soft: u64,
    /// How far the process may raise it; `u64::MAX` is unlimited.
    pub hard: u64,
}
