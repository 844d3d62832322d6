//! Puts containers into cgroups: version 1, version 2, and hosts that mix them.
//!
//! In: a `CgroupSpec`. Out: directories below the controllers' mounts with limits in force. Never assumes where a
//! controller is mounted; that is read from the kernel.

mod bpf;
mod freezer;
mod limits;
mod parents;
mod stats;
mod tree;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use crate::spec::{CgroupSpec, DeviceRule, Limits};
use limits::Write;
pub use parents::{missing_groups, remove_empty};
use tree::{Tree, below};

/// Controllers of version 2 that limits need. Those that a host lacks are left out.
const V2_CONTROLLERS: &[&str] = &["cpu", "cpuset", "io", "memory", "pids"];

/// How long `remove` waits for killed processes to be gone.
/// chosen: ten times what the kernel needs to end a process with a few GiB of memory.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the kernel's cgroups are laid out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Every controller has a tree of its own. Also hosts that mix the versions with all controllers in version 1.
    V1,
    /// One tree for all controllers.
    V2,
}

/// The group of one container in every tree.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// Every tree with the directory of this group in it.
    parts: Vec<(Tree, PathBuf)>,
}

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// A parent or name that leads elsewhere.
    #[error("invalid cgroup path `{path}`")]
    BadPath {
        /// The offending text.
        path: String,
    },
    /// A limit needs a controller that is not there.
    #[error("the `{controller}` cgroup controller is not available")]
    NoController {
        /// Name of the controller.
        controller: &'static str,
    },
    /// A file or directory refused.
    #[error("{action} `{}`: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A process does not stop, for example one that waits for a disk.
    #[error("processes in cgroup `{}` do not freeze", path.display())]
    NotFrozen {
        /// Where.
        path: PathBuf,
    },
    /// Processes are left although all were killed.
    #[error("processes are left in cgroup `{}`", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
}

/// Figures of a running container, for `docker stats`. Zero where the kernel has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used by all processes.
    pub cpu_usage_ns: u64,
    /// Part of it in user mode.
    pub cpu_user_ns: u64,
    /// Part of it in the kernel.
    pub cpu_system_ns: u64,
    /// Periods in which the quota applied.
    pub cpu_periods: u64,
    /// Periods in which the quota was used up.
    pub cpu_throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub cpu_throttled_ns: u64,
    /// Memory in use, page cache included.
    pub memory_usage_bytes: u64,
    /// Highest use so far.
    pub memory_max_usage_bytes: u64,
    /// The limit; `u64::MAX` is none.
    pub memory_limit_bytes: u64,
    /// Page cache that the kernel would drop first (`inactive_file`).
    pub memory_inactive_file_bytes: u64,
    /// All counters of `memory.stat`, by the kernel's names.
    pub memory_stat: Vec<(String, u64)>,
    /// Processes and threads.
    pub pids_current: u64,
    /// The limit of them; `u64::MAX` is none.
    pub pids_limit: u64,
    /// Use of block devices, in the kernel's order.
    pub block: Vec<BlockUse>,
}

/// Use of one block device by a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockUse {
    /// Major and minor number.
    pub device: (u64, u64),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// What a container is shown of the cgroups.
pub(crate) enum View {
    /// The version 2 tree, mounted anew inside.
    V2,
    /// Its own directory of every tree.
    V1 {
        /// In the order of the host's mounts.
        trees: Vec<ViewTree>,
    },
}

/// One directory of a container's `/sys/fs/cgroup`.
pub(crate) struct ViewTree {
    /// Its name, as on the host (`cpu,cpuacct`).
    pub(crate) name: String,
    /// Other names of it (`cpu`, `cpuacct`).
    pub(crate) links: Vec<String>,
    /// A copy of the host's mount, attached nowhere.
    pub(crate) copy: OwnedFd,
}

/// How cgroups are laid out on this host.
///
/// # Errors
/// When no cgroup file system is mounted.
pub fn layout() -> Result<Layout, CgroupError> {
    let trees = tree::detect()?;
    Ok(if trees.iter().all(Tree::is_v2) { Layout::V2 } else { Layout::V1 })
}

impl Cgroup {
    /// Makes the group in every tree and sets limits and device rules. An old group of the same name is taken over.
    ///
    /// # Errors
    /// When a directory cannot be made, or a limit cannot be set; nothing is left behind then.
    pub fn create(spec: &CgroupSpec, devices: &[DeviceRule]) -> Result<Self, CgroupError> {
        let group = Self::open(&spec.parent, &spec.name)?;
        // Another daemon that shares the parent may take it away, empty as it is, just before this group is made in it.
        let made = group
            .make(&spec.parent)
            .or_else(|error| if is_gone(&error) { group.make(&spec.parent) } else { Err(error) })
            .and_then(|()| group.set(&spec.limits))
            .and_then(|()| group.devices(devices));
        if let Err(error) = made {
            // What went wrong first is what the caller needs to know.
            drop(group.remove());
            return Err(error);
        }
        Ok(group)
    }

    /// Makes the group in every tree, with nothing but its parent's limits. One that is there is taken over as it is.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn unlimited(parent: &str, name: &str) -> Result<Self, CgroupError> {
        let group = Self::open(parent, name)?;
        group.make(parent)?;
        Ok(group)
    }

    /// Names an existing group, or one that may be gone, without touching it.
    ///
    /// # Errors
    /// When parent or name lead elsewhere, or no cgroup file system is mounted.
    pub fn open(parent: &str, name: &str) -> Result<Self, CgroupError> {
        let bad = |path: &str| CgroupError::BadPath { path: path.to_owned() };
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(bad(name));
        }
        check_parent(parent)?;
        let parts = tree::detect()?
            .into_iter()
            .map(|tree| {
                let own = below(&tree.mount, parent).join(name);
                (tree, own)
            })
            .collect();
        Ok(Self { parts })
    }

    /// The groups that a process is in.
    pub(crate) fn of_process(pid: i32) -> Result<Self, CgroupError> {
        Ok(Self { parts: tree::groups_of(pid, &tree::detect()?)? })
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// When a tree refuses, for example because the process is gone.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.add_except(pid, false)
    }

    /// Moves a process in, except in the version 2 tree if it was born there.
    pub(crate) fn add_except(&self, pid: i32, born_in_v2: bool) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        for (tree, own) in &self.parts {
            if !(born_in_v2 && tree.is_v2()) {
                write_file(&own.join("cgroup.procs"), &pid)?;
            }
        }
        Ok(())
    }

    /// Opens the version 2 directory, to start a process in it.
    pub(crate) fn open_v2(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, self.v2()?, flags, Mode::empty()).ok()
    }

    /// What the container will be shown. To be called where the host's mounts are still in sight.
    pub(crate) fn view(&self) -> Result<View, (PathBuf, rustix::io::Errno)> {
        if self.parts.iter().all(|(tree, _)| tree.is_v2()) {
            return Ok(View::V2);
        }
        let mut trees = Vec::with_capacity(self.parts.len());
        for (tree, own) in &self.parts {
            let Some(name) = tree.mount.file_name().map(|name| name.to_string_lossy().into_owned()) else {
                continue;
            };
            let copy = crate::root::copy_of(CWD, own, false).map_err(|errno| (own.clone(), errno))?;
            let links = name.split(',').filter(|link| *link != name).map(ToOwned::to_owned).collect();
            trees.push(ViewTree { name, links, copy });
        }
        Ok(View::V1 { trees })
    }

    /// Changes limits of a running container; what is `None` stays as it is.
    ///
    /// # Errors
    /// When a controller is missing or refuses.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.set(limits)
    }

    /// Process ids in the group, also below it, as the host sees them.
    ///
    /// # Errors
    /// When the group cannot be read; a missing one has no processes.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        for (_, own) in &self.parts {
            for folder in with_groups_below(own) {
                pids_in(&folder, &mut pids)?;
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in the group and below it with SIGKILL; does not wait for their end.
    ///
    /// # Errors
    /// When the group's processes cannot be listed.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        // Since Linux 5.14 the kernel does it at once, also to processes that are being forked meanwhile.
        if let Some(own) = self.v2() {
            if !own.exists() {
                return Ok(());
            }
            if write_file(&own.join("cgroup.kill"), "1").is_ok() {
                return self.kill_listed();
            }
        }
        // Else they are stopped first, so that none of them can fork faster than it is killed.
        let freezes = self.v1("freezer").is_some() && self.order_freeze(true).is_ok();
        let killed = self.kill_listed();
        if freezes {
            self.order_freeze(false)?;
        }
        killed
    }

    fn kill_listed(&self) -> Result<(), CgroupError> {
        for pid in self.pids()? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended by itself since it was listed.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        Ok(())
    }

    /// How many processes the kernel killed here for lack of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let count = |own: &Path, file: &str| stats::field(&stats::table(own, file), "oom_kill");
        let v1 = self.v1("memory").map_or(0, |own| count(own, "memory.oom_control"));
        let v2 = self.v2().map_or(0, |own| count(own, "memory.events"));
        v1.max(v2)
    }

    /// Reads the figures of now.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        for (_, own) in &self.parts {
            if let Err(source) = std::fs::metadata(own) {
                return Err(CgroupError::File { action: "read", path: own.clone(), source });
            }
        }
        Ok(stats::read(self))
    }

    /// Kills what is left and removes the group and the groups below it; a missing group is fine.
    /// Takes at most two seconds.
    ///
    /// # Errors
    /// When processes are left, or a directory cannot be removed; the other trees are removed all the same.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut pause = Duration::from_micros(200);
        loop {
            match self.remove_once() {
                Err(CgroupError::Busy { .. }) if Instant::now() < deadline => {
                    self.kill_all()?;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    /// Removes the group where nothing is in it; true when it is gone everywhere.
    #[must_use]
    pub fn remove_if_empty(&self) -> bool {
        let folders: Vec<PathBuf> = self.parts.iter().map(|(_, own)| own.clone()).collect();
        remove_empty(&folders).is_empty()
    }

    fn remove_once(&self) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for (_, own) in &self.parts {
            for folder in with_groups_below(own).into_iter().rev() {
                match std::fs::remove_dir(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        result = Err(CgroupError::Busy { path: folder });
                    }
                    Err(source) => result = Err(CgroupError::File { action: "remove", path: folder, source }),
                }
            }
        }
        result
    }

    /// Names of the groups directly below `parent` in any tree, for sweeping up after a crash.
    ///
    /// # Errors
    /// When a tree cannot be read; a missing parent has no groups.
    pub fn list(parent: &str) -> Result<Vec<String>, CgroupError> {
        check_parent(parent)?;
        let mut names = Vec::new();
        for tree in tree::detect()? {
            let path = below(&tree.mount, parent);
            names.extend(
                folders_in(&path)?
                    .into_iter()
                    .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
            );
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The directory in the version 1 tree of a controller.
    fn v1(&self, controller: &str) -> Option<&Path> {
        self.parts.iter().find(|(tree, _)| tree.has(controller)).map(|(_, own)| own.as_path())
    }

    /// The directory in the version 2 tree.
    fn v2(&self) -> Option<&Path> {
        self.parts.iter().find(|(tree, _)| tree.is_v2()).map(|(_, own)| own.as_path())
    }

    fn make(&self, parent: &str) -> Result<(), CgroupError> {
        for (tree, own) in &self.parts {
            let mut path = tree.mount.clone();
            for name in parent.split('/').filter(|name| !name.is_empty()) {
                if tree.is_v2() {
                    offer_controllers(&path);
                }
                path.push(name);
                make_group(&path, tree)?;
            }
            if tree.is_v2() {
                offer_controllers(&path);
            }
            make_group(own, tree)?;
        }
        Ok(())
    }

    fn set(&self, limits: &Limits) -> Result<(), CgroupError> {
        let v2 = self.v2();
        // A mixed host has each controller in one of the versions.
        for write in limits::v1(limits) {
            if let Some(own) = self.v1(write.controller) {
                apply(own, &write)?;
            } else if write.required && v2.is_none() {
                return Err(CgroupError::NoController { controller: write.controller });
            }
        }
        let Some(own) = v2 else { return Ok(()) };
        for write in limits::v2(limits) {
            let in_v1 = if write.controller == "io" { "blkio" } else { write.controller };
            if self.v1(in_v1).is_none() {
                apply(own, &write)?;
            }
        }
        Ok(())
    }

    fn devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        if let Some(own) = self.v1("devices") {
            for (file, text) in limits::v1_devices(rules) {
                write_file(&own.join(file), &text)?;
            }
            return Ok(());
        }
        let (Some(own), Some(folder)) = (self.v2(), self.open_v2_readable()?) else {
            return Err(CgroupError::NoController { controller: "devices" });
        };
        bpf::attach(folder, rules).map_err(|source| CgroupError::File {
            action: "attach device rules to",
            path: own.to_owned(),
            source,
        })
    }

    fn open_v2_readable(&self) -> Result<Option<std::fs::File>, CgroupError> {
        let Some(own) = self.v2() else { return Ok(None) };
        let open = std::fs::File::open(own);
        open.map(Some).map_err(|source| CgroupError::File { action: "open", path: own.to_owned(), source })
    }
}

fn is_gone(error: &CgroupError) -> bool {
    matches!(error, CgroupError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn check_parent(parent: &str) -> Result<(), CgroupError> {
    if parent.split('/').any(|name| name == "." || name == "..") {
        return Err(CgroupError::BadPath { path: parent.to_owned() });
    }
    Ok(())
}

fn make_group(path: &Path, tree: &Tree) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(CgroupError::File { action: "make", path: path.to_owned(), source }),
    }
    if tree.has("cpuset") {
        // A new group may use nothing at all, and no process can be in it, until it gets what its parent has.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(path, file)?;
        }
    }
    Ok(())
}

fn inherit(path: &Path, file: &str) -> Result<(), CgroupError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|source| CgroupError::File { action: "read", path: path.to_owned(), source })
    };
    let own = path.join(file);
    if read(&own)?.trim().is_empty()
        && let Some(parent) = path.parent()
    {
        write_file(&own, read(&parent.join(file))?.trim())?;
    }
    Ok(())
}

/// Lets the groups below a version 2 group have the controllers that limits need. A controller that cannot be offered
/// is noticed where a limit needs it.
fn offer_controllers(path: &Path) {
    let list = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let (available, offered) = (list("cgroup.controllers"), list("cgroup.subtree_control"));
    for controller in available.split_whitespace().filter(|name| V2_CONTROLLERS.contains(name)) {
        if !offered.split_whitespace().any(|name| name == controller) {
            drop(write_file(&path.join("cgroup.subtree_control"), &format!("+{controller}")));
        }
    }
}

fn apply(own: &Path, write: &Write) -> Result<(), CgroupError> {
    let path = own.join(write.file);
    match write_file(&path, &write.text) {
        Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if write.required {
                Err(CgroupError::NoController { controller: write.controller })
            } else {
                Ok(())
            }
        }
        // A limit of memory cannot exceed that of memory and swap together: raise the latter first.
        Err(error) if write.file == "memory.limit_in_bytes" => {
            write_file(&own.join("memory.memsw.limit_in_bytes"), "-1").map_err(|_| error)?;
            write_file(&path, &write.text)
        }
        other => other,
    }
}

/// Writes to a file of the kernel, which must exist, in one call as the kernel demands.
fn write_file(path: &Path, text: &str) -> Result<(), CgroupError> {
    let write = || -> rustix::io::Result<()> {
        let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes())).map(drop)
    };
    write().map_err(|errno| CgroupError::File {
        action: "write to",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// The group and all groups below it, parents first. Missing ones are left out.
fn with_groups_below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        // A group that vanishes meanwhile has nothing below it.
        let below = folders_in(folder).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

fn folders_in(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::File { action: "list", path: path.to_owned(), source };
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

fn pids_in(folder: &Path, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    let path = folder.join("cgroup.procs");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0))
        }
        // Gone, or being removed just now.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
        Err(source) => return Err(CgroupError::File { action: "read", path, source }),
    }
    Ok(())
}
