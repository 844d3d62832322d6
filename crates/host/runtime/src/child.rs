//! What the new process does between `clone` and its program.
//!
//! In: the spec, as the creator's memory was at the fork. Out: `execve`, or a failure for the creator. Each function runs
//! in the new process only and returns only to report.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::UnshareFlags;

use crate::cgroup::{Cgroup, View};
use crate::error::Step;
use crate::inside::Inside;
use crate::mounts::{self, Place};
use crate::process::{self, Setting, Streams};
use crate::spec::{ExecSpec, MountSource, Namespace, Network, ProcessSpec, Spec};
use crate::wire::{AtStep, Channel, Failure, Order};
use crate::{devices, network, root, sys, sysctl};

/// What the creator hands over.
pub(crate) struct Inherited {
    pub(crate) channel: Channel,
    /// Input, output and error output; `None` when there will be a terminal.
    pub(crate) pipes: Option<[OwnedFd; 3]>,
    /// Device and inode of our own program.
    pub(crate) own_program: Option<(u64, u64)>,
}

/// Runs `body` to its end and reports why it failed.
pub(crate) fn report(channel: &Channel, result: Result<Infallible, Failure>) -> ! {
    let Err(failure) = result;
    channel.failed(&failure);
    sys::exit_now(1)
}

/// The first process of a container.
pub(crate) fn container(spec: &Spec, group: &Cgroup, inherited: Inherited) -> ! {
    let Inherited { channel, pipes, own_program } = inherited;
    let result = prepare_container(spec, group, &channel, pipes).and_then(|(inside, streams)| {
        let setting = Setting { inside: &inside, channel: &channel, streams, own_program, init: spec.init };
        process::run(&spec.process, setting)
    });
    report(&channel, result)
}

/// One more process in a running container. `target` is a pidfd of its init.
pub(crate) fn extra(spec: &ExecSpec, target: &OwnedFd, inherited: Inherited) -> ! {
    let Inherited { channel, pipes, own_program } = inherited;
    let result = prepare_extra(&spec.process, target, &channel, pipes).and_then(|(inside, streams)| {
        let setting = Setting { inside: &inside, channel: &channel, streams, own_program, init: false };
        process::run(&spec.process, setting)
    });
    report(&channel, result)
}

fn prepare_extra(
    spec: &ProcessSpec,
    target: &OwnedFd,
    channel: &Channel,
    pipes: Option<[OwnedFd; 3]>,
) -> Result<(Inside, Streams), Failure> {
    process::begin(spec)?;
    // The PID namespace was chosen by the creator, since only a fork enters it.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    sys::setns(target, namespaces).at(Step::JoinNamespace, "")?;
    await_creator(channel);
    let inside = Inside::new(Path::new("/")).at(Step::PivotRoot, "/")?;
    let streams = streams(&inside, spec, pipes)?;
    Ok((inside, streams))
}

fn prepare_container(
    spec: &Spec,
    group: &Cgroup,
    channel: &Channel,
    pipes: Option<[OwnedFd; 3]>,
) -> Result<(Inside, Streams), Failure> {
    process::begin(&spec.process)?;
    join_namespaces(spec)?;
    let sources = mounts::open_sources(&spec.mounts)?;
    let mut cgroups = if spec.mounts.iter().any(|mount| mount.source == MountSource::Cgroup) {
        group.view().map_err(|(path, errno)| Failure::BindSource {
            path: path.to_string_lossy().into_owned(),
            errno,
        })?
    } else {
        View::V2
    };
    root::detach_from_host()?;
    let cgroup_file = match &spec.namespaces.cgroup {
        Namespace::Path(path) => Some(open_namespace(path)?),
        Namespace::New | Namespace::Host => None,
    };
    let tree = root::mount(&spec.root)?;
    root::pivot(&tree)?;
    let inside = Inside::new(Path::new("/")).at(Step::PivotRoot, "/")?;

    let mut joined = false;
    for (mount, source) in spec.mounts.iter().zip(sources) {
        if mount.source == MountSource::Cgroup && !joined {
            enter_cgroup_namespace(spec, channel, cgroup_file.as_ref())?;
            joined = true;
        }
        Place { inside: &inside, cgroups: &mut cgroups }.mount(mount, source)?;
    }
    if !joined {
        enter_cgroup_namespace(spec, channel, cgroup_file.as_ref())?;
    }
    finish_container(spec, &inside, pipes)
}

/// What needs all mounts, the interfaces and the cgroup.
fn finish_container(
    spec: &Spec,
    inside: &Inside,
    pipes: Option<[OwnedFd; 3]>,
) -> Result<(Inside, Streams), Failure> {
    devices::make(inside, &spec.devices)?;
    if spec.namespaces.uts == Namespace::New {
        sys::sethostname(&spec.hostname).at(Step::Hostname, &spec.hostname)?;
        if !spec.domainname.is_empty() {
            sys::setdomainname(&spec.domainname).at(Step::Hostname, &spec.domainname)?;
        }
    }
    match &spec.network {
        Network::Interfaces(interfaces) => network::configure(inside, interfaces)?,
        Network::None => network::configure(inside, &[])?,
        Network::Host | Network::Path(_) => {}
    }
    sysctl::apply(inside, &spec.sysctls)?;
    let streams = streams(inside, &spec.process, pipes)?;
    if let Streams::Terminal { own, .. } = &streams {
        mounts::console(inside, own)?;
    }
    mounts::mask(inside, &spec.masked_paths)?;
    mounts::protect(inside, &spec.readonly_paths)?;
    if spec.root.readonly {
        mounts::protect_root(inside)?;
    }
    // A fresh view of the root, for what was mounted on it meanwhile.
    let inside = Inside::new(Path::new("/")).at(Step::PivotRoot, "/")?;
    Ok((inside, streams))
}

fn streams(inside: &Inside, spec: &ProcessSpec, pipes: Option<[OwnedFd; 3]>) -> Result<Streams, Failure> {
    match pipes {
        Some(pipes) => Ok(Streams::Pipes(pipes)),
        None => process::open_terminal(inside, spec.terminal.unwrap_or_default()),
    }
}

/// Joins the namespaces of others. That of processes was the creator's to choose; new ones came with the fork.
fn join_namespaces(spec: &Spec) -> Result<(), Failure> {
    let network = match &spec.network {
        Network::Path(path) => Some(path),
        Network::Host | Network::None | Network::Interfaces(_) => None,
    };
    let path = |namespace: &'_ Namespace| match namespace {
        Namespace::Path(path) => Some(path.clone()),
        Namespace::New | Namespace::Host => None,
    };
    for (path, kind) in [
        (path(&spec.namespaces.ipc), libc::CLONE_NEWIPC),
        (path(&spec.namespaces.uts), libc::CLONE_NEWUTS),
        (network.cloned(), libc::CLONE_NEWNET),
    ] {
        if let Some(path) = path {
            sys::setns(open_namespace(&path)?, kind).at(Step::JoinNamespace, path.to_string_lossy())?;
        }
    }
    Ok(())
}

fn open_namespace(path: &Path) -> Result<OwnedFd, Failure> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::JoinNamespace, path.to_string_lossy())
}

/// Waits until this process is in its cgroups, which become the root of what it sees.
fn enter_cgroup_namespace(spec: &Spec, channel: &Channel, other: Option<&OwnedFd>) -> Result<(), Failure> {
    await_creator(channel);
    match &spec.namespaces.cgroup {
        Namespace::Host => Ok(()),
        Namespace::New => {
            // SAFETY: a cgroup namespace changes only what this process is shown; descriptors stay what they are.
            let result = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) };
            result.at(Step::CgroupNamespace, "")
        }
        Namespace::Path(path) => {
            let other = other.expect("it was opened before the root changed");
            sys::setns(other.as_fd(), libc::CLONE_NEWCGROUP).at(Step::JoinNamespace, path.to_string_lossy())
        }
    }
}

/// Waits for cgroup and network. A creator that is gone has no use for this process.
fn await_creator(channel: &Channel) {
    if !channel.await_order(Order::GoOn) {
        sys::exit_now(1);
    }
}
