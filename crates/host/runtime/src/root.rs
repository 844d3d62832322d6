//! Makes the root file system of a container and moves its init there.
//!
//! In: the layers. Out: a mount namespace in which nothing of the host is left but what was opened before. Runs in the
//! new process only.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::error::Step;
use crate::spec::Root;
use crate::sys;
use crate::wire::{AtStep, Failure};

/// Longest value that `fsconfig` takes. Source: Linux, `fs/fsopen.c`, `strndup_user(_value, 256)` with its nul byte.
const MAX_VALUE: usize = 255;

/// Stops mounts from travelling from here to the host; those of the host still arrive.
pub(crate) fn detach_from_host() -> Result<(), Failure> {
    let attr = sys::MountAttr { propagation: libc::MS_SLAVE, ..Default::default() };
    sys::mount_setattr(CWD, c"/", libc::AT_RECURSIVE, attr).at(Step::Detach, "/")
}

/// Mounts the root and returns it; it is not yet the root of this process.
pub(crate) fn mount(root: &Root) -> Result<OwnedFd, Failure> {
    let merged = root.merged.to_string_lossy();
    let mount = if root.lower.is_empty() {
        open_tree(CWD, &root.upper, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
    } else {
        overlay(root)
    }
    .at(Step::MountRoot, &merged)?;
    let private = sys::MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
    sys::mount_setattr(&mount, c"", libc::AT_EMPTY_PATH, private).at(Step::MountRoot, &merged)?;
    move_mount(&mount, "", CWD, &root.merged, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::MountRoot, &merged)?;
    Ok(mount)
}

/// Makes `mount` the root and forgets the host's tree.
pub(crate) fn pivot(mount: &OwnedFd) -> Result<(), Failure> {
    rustix::process::fchdir(mount).at(Step::PivotRoot, "")?;
    // Both on one place: the old root ends up below the new one, from where it is taken off.
    // Source: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(".", ".").at(Step::PivotRoot, "")?;
    unmount(".", UnmountFlags::DETACH).at(Step::PivotRoot, "old root")?;
    rustix::process::chdir("/").at(Step::PivotRoot, "/")
}

fn overlay(root: &Root) -> Result<OwnedFd, Errno> {
    match overlay_by_layer(root) {
        // Kernels before 6.7 take only the whole list at once. Those before 6.5 say so no earlier than at the end.
        Err(Errno::INVAL) => overlay_by_list(root),
        other => other,
    }
}

fn overlay_by_layer(root: &Root) -> Result<OwnedFd, Errno> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Layers and directories whose path is too long for one value are named by descriptor. They must stay open until
    // the file system exists.
    let mut kept = Vec::new();
    for layer in &root.lower {
        fsconfig_set_string(&fs, "lowerdir+", &*short(layer, &mut kept)?)?;
    }
    fsconfig_set_string(&fs, "upperdir", &*short(&root.upper, &mut kept)?)?;
    fsconfig_set_string(&fs, "workdir", &*short(&root.work, &mut kept)?)?;
    // With an index, a second mount of the same upper directory after a crash would be refused.
    // Source: moby, `overlay2.go`, `indexOff`.
    fsconfig_set_string(&fs, "index", "off")?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The path itself, or one through a descriptor of it when it is too long for the kernel.
fn short(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<PathBuf, Errno> {
    if path.as_os_str().len() <= MAX_VALUE {
        return Ok(path.to_owned());
    }
    let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    kept.push(fd);
    Ok(short)
}

/// The way of `mount(2)`, whose options must fit one page: every directory is named by the number of a descriptor,
/// relative to `/proc/self/fd`, which is short enough for more layers than overlayfs takes (500).
fn overlay_by_list(root: &Root) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut kept = Vec::with_capacity(root.lower.len() + 2);
    let mut number = |path: &Path| -> Result<String, Errno> {
        let fd = open(path, flags, Mode::empty())?;
        let number = fd.as_raw_fd().to_string();
        kept.push(fd);
        Ok(number)
    };
    let upper = number(&root.upper)?;
    let work = number(&root.work)?;
    let lower = root.lower.iter().map(|layer| number(layer)).collect::<Result<Vec<_>, _>>()?.join(":");
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work},index=off");
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    let merged = open(&root.merged, flags, Mode::empty())?;
    rustix::process::chdir("/proc/self/fd")?;
    let target = merged.as_raw_fd().to_string();
    let mounted = rustix::mount::mount(
        "overlay",
        target.as_str(),
        "overlay",
        rustix::mount::MountFlags::empty(),
        &*data,
    );
    rustix::process::chdir("/")?;
    mounted?;
    // Taken off its place again, so that both ways end with a mount that is nowhere yet.
    let tree =
        open_tree(CWD, &root.merged, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    unmount(&root.merged, UnmountFlags::DETACH)?;
    Ok(tree)
}

/// A copy of the mount at `path`, attached nowhere.
pub(crate) fn copy_of(fd: impl AsFd, path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(fd, path, flags)
}
