//! Docker's defaults: what every container gets unless asked otherwise.
//!
//! In: the user's own mounts and choices. Out: lists for a `Spec`. Looks at the machine only where a list depends on it
//! (capabilities the kernel knows, processors).

use std::path::{Path, PathBuf};

use crate::inside::clean;
use crate::spec::{Capabilities, DeviceKind, DeviceRule, Mount, MountFlags, MountSource};

/// Names of all capabilities, in the order of their numbers. Source: `linux/capability.h`.
const CAPABILITY_NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What an ordinary container may do. Source: moby, `daemon/pkg/oci/caps/defaults.go`.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Paths hidden in an unprivileged container, besides those of [`masked_paths`].
/// Source: moby, `daemon/pkg/oci/defaults.go`.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths made read-only in an unprivileged container. Source: moby, `daemon/pkg/oci/defaults.go`.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Size of `/dev/shm`. Source: moby, `daemon/config`, `DefaultShmSize`.
pub const SHM_BYTES: u64 = 64 << 20;

/// Kernel parameters of a container with a network of its own.
/// Source: moby, `daemon/oci_linux.go`, `WithSysctls`: ports below 1024 and ping need no capability.
pub const NETWORK_SYSCTLS: &[(&str, &str)] =
    &[("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The capabilities of an ordinary container.
#[must_use]
pub fn capabilities() -> Capabilities {
    Capabilities(
        DEFAULT_CAPABILITIES
            .iter()
            .filter_map(|name| capability_bit(name))
            .fold(0, |set, bit| set | 1 << bit),
    )
}

/// Every capability that can be given (`--privileged`, `--cap-add ALL`): those of this process.
///
/// Source: containerd, `pkg/cap`, `Current`: an engine in a container has not all that the kernel knows.
#[must_use]
pub fn all_capabilities() -> Capabilities {
    let known = (1u64 << (last_capability() + 1)) - 1;
    let own = rustix::thread::capabilities(None).map_or(known, |sets| sets.permitted.bits());
    Capabilities(own & known)
}

/// The highest capability number of the running kernel.
pub(crate) fn last_capability() -> u32 {
    let newest = u32::try_from(CAPABILITY_NAMES.len() - 1).unwrap_or(0);
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    text.trim().parse().unwrap_or(newest).min(62)
}

/// The number of a capability from its name with or without `CAP_`, in any case; `None` when unknown.
#[must_use]
pub fn capability_bit(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITY_NAMES.iter().position(|known| *known == name).and_then(|position| u32::try_from(position).ok())
}

/// The masked paths of an unprivileged container on this machine.
///
/// Source: moby, `daemon/pkg/oci/defaults.go`: each processor's thermal throttling counters tell of other containers.
#[must_use]
pub fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED_PATHS.iter().map(ToString::to_string).collect();
    let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    for processor in processors {
        let path = processor.path().join("thermal_throttle");
        if path.is_dir() {
            paths.push(path.to_string_lossy().into_owned());
        }
    }
    paths
}

/// The read-only paths of an unprivileged container.
#[must_use]
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(ToString::to_string).collect()
}

/// The default mounts with the user's merged in: a user's mount replaces a default one at the same place, and
/// mounts nearer to the root come first.
///
/// `shm_bytes` is the size of `/dev/shm` (Docker: 64 MiB). A privileged container gets writable `/sys` and cgroups.
/// A user's mount on `/dev` replaces all that would be below it.
/// Source: moby, `daemon/oci_linux.go`, `withMounts`, and `daemon/pkg/oci/defaults.go`.
#[must_use]
pub fn mounts(user: Vec<Mount>, shm_bytes: u64, privileged: bool) -> Vec<Mount> {
    let kernel = MountFlags { nosuid: true, noexec: true, nodev: true, ..MountFlags::default() };
    let shown = MountFlags { readonly: !privileged, ..kernel };
    let dev = MountFlags { nosuid: true, strictatime: true, ..MountFlags::default() };
    let pts = MountFlags { nosuid: true, noexec: true, ..MountFlags::default() };
    let mut mounts: Vec<Mount> = [
        ("/proc", MountSource::Proc, kernel),
        ("/dev", MountSource::Dev, dev),
        ("/dev/pts", MountSource::Devpts, pts),
        ("/sys", MountSource::Sysfs, shown),
        ("/sys/fs/cgroup", MountSource::Cgroup, shown),
        ("/dev/mqueue", MountSource::Mqueue, kernel),
        ("/dev/shm", MountSource::Tmpfs { data: format!("mode=1777,size={shm_bytes}") }, kernel),
    ]
    .into_iter()
    .map(|(target, source, flags)| Mount { target: PathBuf::from(target), source, flags })
    .collect();
    let targets: Vec<PathBuf> = user.iter().map(|mount| clean(&mount.target)).collect();
    let own_dev = targets.iter().any(|target| target == Path::new("/dev"));
    mounts.retain(|mount| {
        let is_replaced = targets.contains(&mount.target) || (own_dev && mount.target.starts_with("/dev"));
        !is_replaced
    });
    mounts.extend(user);
    // The sort keeps the order of mounts at the same depth.
    mounts.sort_by_key(|mount| clean(&mount.target).components().count());
    mounts
}

/// The device rules of an ordinary or a privileged container.
///
/// Source: moby, `daemon/pkg/oci/defaults.go`, and runc, `libcontainer/specconv`, `AllowedDevices`, which come first.
#[must_use]
pub fn device_rules(privileged: bool) -> Vec<DeviceRule> {
    let all = DeviceRule {
        allow: true,
        kind: None,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    if privileged {
        return vec![all];
    }
    let nodes = DeviceRule { read: false, write: false, ..all };
    let device = |major, minor| DeviceRule { kind: Some(DeviceKind::Char), major: Some(major), minor, ..all };
    let mut rules = vec![
        DeviceRule { allow: false, ..all },
        DeviceRule { kind: Some(DeviceKind::Char), ..nodes },
        DeviceRule { kind: Some(DeviceKind::Block), ..nodes },
        // Pseudo terminals of both ends.
        device(136, None),
        device(5, Some(2)),
    ];
    // null, zero, full, random, urandom, tty, console
    let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)];
    rules.extend(known.into_iter().map(|(major, minor)| device(major, Some(minor))));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Propagation;

    #[test]
    fn the_default_capabilities_are_dockers() {
        // Source: docker 28.1, observed: `CapBnd: 00000000a80425fb` in a container.
        assert_eq!(capabilities(), Capabilities(0xa804_25fb));
        assert_eq!(capability_bit("cap_sys_admin"), Some(21));
        assert_eq!(capability_bit("CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(capability_bit("CAP_NONSENSE"), None);
    }

    fn bind(target: &str) -> Mount {
        Mount {
            target: target.into(),
            source: MountSource::Bind {
                path: "/x".into(),
                subpath: Default::default(),
                recursive: true,
                propagation: Propagation::default(),
            },
            flags: MountFlags::default(),
        }
    }

    fn targets(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect()
    }

    #[test]
    fn a_users_mount_replaces_a_default_one_and_parents_come_first() {
        let mounts = mounts(vec![bind("/a/b/c"), bind("/dev/shm/"), bind("/a")], SHM_BYTES, false);
        assert_eq!(
            targets(&mounts),
            [
                "/proc",
                "/dev",
                "/sys",
                "/a",
                "/dev/pts",
                "/dev/mqueue",
                "/dev/shm/",
                "/sys/fs/cgroup",
                "/a/b/c"
            ]
        );
    }

    #[test]
    fn a_users_dev_replaces_all_of_it() {
        let mounts = mounts(vec![bind("/dev")], SHM_BYTES, false);
        assert_eq!(targets(&mounts), ["/proc", "/sys", "/dev", "/sys/fs/cgroup"]);
    }

    #[test]
    fn only_a_privileged_container_may_write_to_sys() {
        let readonly = |privileged| {
            mounts(Vec::new(), 0, privileged).iter().filter(|mount| mount.flags.readonly).count()
        };
        assert_eq!(readonly(false), 2);
        assert_eq!(readonly(true), 0);
    }
}
