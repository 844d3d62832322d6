//! Turns a container's record into the runtime's orders.
//!
//! In: the record, its image's layers, its place in the network, the processes whose namespaces it shares. Out: a
//! `runtime::Spec`. Looks at the machine only for device nodes; never creates anything.

pub(crate) mod devices;
pub(crate) mod limits;
pub(crate) mod network_files;
pub(crate) mod process;

use std::path::{Path, PathBuf};

use network::MacvlanMode;
use runtime::{Mount, MountFlags, MountSource, Namespace, Namespaces, Network, Propagation, Root, Spec};

use crate::config::OpenFiles;
use crate::container::create_parts;
use crate::container::mounts::{MountFrom, MountRecord};
use crate::container::record::Record;
use crate::error::EngineError;
use crate::files::Roots;

/// The init processes of containers whose namespaces this one shares.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shared {
    pub(crate) network: Option<i32>,
    pub(crate) ipc: Option<i32>,
    pub(crate) pid: Option<i32>,
}

/// Everything beside the record that the orders depend on.
pub(crate) struct Surroundings<'a> {
    pub(crate) roots: &'a Roots,
    /// Directories of the image's layers, top first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) attachment: Option<&'a network::Attachment>,
    pub(crate) shared: Shared,
    /// For a container that names no limit.
    pub(crate) open_files: Option<OpenFiles>,
    /// The parent of the container's cgroup.
    pub(crate) cgroup_parent: String,
}

/// The orders for one run of the container.
pub(crate) fn build(record: &Record, around: &Surroundings<'_>) -> Result<Spec, EngineError> {
    let host = &record.host_config;
    let overlay = around.roots.overlay(&record.id);
    let (devices, mut rules) = devices::build(host)?;
    let mut all_rules = runtime::defaults::device_rules(host.privileged);
    all_rules.append(&mut rules);
    Ok(Spec {
        root: Root {
            lower: around.layers.clone(),
            upper: overlay.join("upper"),
            work: overlay.join("work"),
            merged: overlay.join("merged"),
            readonly: host.readonly_rootfs,
        },
        namespaces: namespaces(record, around),
        hostname: record.config.hostname.clone(),
        domainname: record.config.domainname.clone(),
        mounts: mounts(record, around),
        masked_paths: host.masked_paths.clone().unwrap_or_default(),
        readonly_paths: host.readonly_paths.clone().unwrap_or_default(),
        devices,
        device_rules: all_rules,
        sysctls: host.sysctls.clone().unwrap_or_default(),
        cgroup: runtime::CgroupSpec {
            parent: around.cgroup_parent.clone(),
            name: record.id.clone(),
            limits: limits::build(host),
        },
        network: network(record, around)?,
        process: process::build(record, create_parts::security(host)?, around.open_files),
        init: host.init.unwrap_or(false),
    })
}

fn path_of(pid: i32, namespace: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{namespace}"))
}

fn namespaces(record: &Record, around: &Surroundings<'_>) -> Namespaces {
    let host = &record.host_config;
    let choose = |mode: &str, shared: Option<i32>, name: &str| match (mode, shared) {
        ("host", _) => Namespace::Host,
        (_, Some(pid)) => Namespace::Path(path_of(pid, name)),
        _ => Namespace::New,
    };
    Namespaces {
        pid: choose(&host.pid_mode, around.shared.pid, "pid"),
        ipc: choose(&host.ipc_mode, around.shared.ipc, "ipc"),
        // Whoever shares a network shares the host name that belongs to it.
        uts: choose(&host.uts_mode, around.shared.network, "uts"),
        cgroup: choose(&host.cgroupns_mode, None, "cgroup"),
    }
}

fn network(record: &Record, around: &Surroundings<'_>) -> Result<Network, EngineError> {
    if let Some(pid) = around.shared.network {
        return Ok(Network::Path(path_of(pid, "net")));
    }
    match record.host_config.network_mode.as_str() {
        "host" => Ok(Network::Host),
        "none" => Ok(Network::None),
        _ => {
            let interfaces = around.attachment.iter().flat_map(|attachment| attachment.interfaces());
            Ok(Network::Interfaces(interfaces.map(interface).collect::<Result<_, _>>()?))
        }
    }
}

fn interface(from: &network::Interface) -> Result<runtime::Interface, EngineError> {
    Ok(runtime::Interface {
        host_name: from.host_name.clone(),
        bridge: Some(from.bridge.clone()).filter(|bridge| !bridge.is_empty()),
        macvlan: from.macvlan.as_ref().map(|macvlan| runtime::MacvlanParent {
            link: macvlan.link.clone(),
            mode: match macvlan.mode {
                MacvlanMode::Private => runtime::MacvlanMode::Private,
                MacvlanMode::Vepa => runtime::MacvlanMode::Vepa,
                MacvlanMode::Bridge => runtime::MacvlanMode::Bridge,
                MacvlanMode::Passthru => runtime::MacvlanMode::Passthru,
            },
        }),
        namespace: from.namespace.clone(),
        isolated: from.isolated,
        name: from.name.clone(),
        mac: Some(read_mac(&from.mac)?),
        addresses: from
            .addresses
            .iter()
            .map(|(ip, prefix_len)| runtime::Address { ip: *ip, prefix_len: *prefix_len })
            .collect(),
        gateways: from.gateways.clone(),
        mtu: from.mtu,
    })
}

fn read_mac(text: &str) -> Result<[u8; 6], EngineError> {
    let wrong = || EngineError::invalid(format!("invalid MAC address: {text}"));
    let mut mac = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() { Err(wrong()) } else { Ok(mac) }
}

fn mounts(record: &Record, around: &Surroundings<'_>) -> Vec<Mount> {
    let host = &record.host_config;
    let mut user: Vec<Mount> = record.mounts.iter().map(|mount| user_mount(mount, around.roots)).collect();
    let is_taken = |target: &str| record.mounts.iter().any(|mount| mount.destination == target);
    for name in ["resolv.conf", "hostname", "hosts"] {
        let target = format!("/etc/{name}");
        if !is_taken(&target) {
            let owner = host.network_mode.strip_prefix("container:").unwrap_or(&record.id);
            user.push(bind(
                around.roots.container(owner).join(name),
                Path::new(&target),
                host.readonly_rootfs,
            ));
        }
    }
    match (host.ipc_mode.as_str(), around.shared.ipc) {
        ("host", _) if !is_taken("/dev/shm") => {
            user.push(bind("/dev/shm".into(), Path::new("/dev/shm"), false))
        }
        (_, Some(pid)) if !is_taken("/dev/shm") => {
            // The other's memory is reached through its own view of the file system.
            user.push(bind(format!("/proc/{pid}/root/dev/shm").into(), Path::new("/dev/shm"), false));
        }
        _ => {}
    }
    let shm = u64::try_from(host.shm_size).unwrap_or(0);
    let mut mounts = runtime::defaults::mounts(user, shm, host.privileged);
    if host.ipc_mode == "none" && !is_taken("/dev/shm") {
        mounts.retain(|mount| mount.target != Path::new("/dev/shm"));
    }
    mounts
}

pub(crate) fn bind(path: PathBuf, target: &Path, readonly: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        source: MountSource::Bind {
            path,
            subpath: PathBuf::new(),
            recursive: true,
            propagation: Propagation::Rprivate,
        },
        flags: MountFlags { readonly, ..Default::default() },
    }
}

pub(crate) fn user_mount(mount: &MountRecord, roots: &Roots) -> Mount {
    let target = PathBuf::from(&mount.destination);
    let mut flags = MountFlags { readonly: !mount.writable, ..Default::default() };
    let source = match &mount.source {
        MountFrom::Bind { path, propagation, recursive, readonly_top_only, .. } => {
            flags.readonly_top_only = *readonly_top_only;
            MountSource::Bind {
                path: path.into(),
                subpath: PathBuf::new(),
                recursive: *recursive,
                propagation: *propagation,
            }
        }
        MountFrom::Volume { name, subpath, .. } => MountSource::Bind {
            path: roots.volume_data(name),
            // Containers can put links into a volume: looked up when it is mounted, inside the volume only.
            subpath: subpath.into(),
            recursive: true,
            propagation: Propagation::Rprivate,
        },
        MountFrom::Tmpfs { data, noexec } => {
            (flags.nosuid, flags.nodev, flags.noexec) = (true, true, *noexec);
            MountSource::Tmpfs { data: data.clone() }
        }
    };
    Mount { target, source, flags }
}
