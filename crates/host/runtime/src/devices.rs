//! Fills `/dev`: nodes, links, and the extra devices of a spec.
//!
//! In: the directory and the list. Out: nodes with the permissions asked for. Decides nothing about access, which is the
//! device cgroup's (see `cgroup`).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mknodat, statat, symlinkat};
use rustix::io::Errno;

use crate::error::Step;
use crate::inside::{Inside, Missing};
use crate::spec::{Device, DeviceKind};
use crate::wire::{AtStep, Failure};

/// Name, major and minor number of the nodes that every container has.
/// Source: OCI runtime specification, "Default Devices".
const NODES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links in `/dev`, with their targets. Source: OCI runtime specification, "Dev symbolic links"; `core` from runc.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the default nodes and links in a fresh `/dev`.
pub(crate) fn fill(dev: impl AsFd) -> Result<(), Failure> {
    for (name, major, minor) in NODES {
        // The caller has cleared the umask, so that the mode holds as it stands.
        mknodat(&dev, *name, FileType::CharacterDevice, Mode::from(0o666), makedev(*major, *minor))
            .at(Step::MakeDevice, format!("/dev/{name}"))?;
    }
    for (name, target) in LINKS {
        symlinkat(*target, &dev, *name).at(Step::MakeLink, format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Makes the extra devices of a container.
pub(crate) fn make(inside: &Inside, devices: &[Device]) -> Result<(), Failure> {
    for device in devices {
        make_one(inside, device).at(Step::MakeDevice, device.path.to_string_lossy())?;
    }
    Ok(())
}

fn make_one(inside: &Inside, device: &Device) -> Result<(), Errno> {
    let path = crate::inside::clean(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let parent = inside.find_or_make(parent, Missing::Directory)?;
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = makedev(device.major, device.minor);
    let mode = Mode::from(device.mode & 0o7777);
    match mknodat(&parent, name, kind, mode, number) {
        Err(Errno::EXIST) => {
            // One of the default nodes, or one of the image's: fine if it is the same device.
            let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if is_own_terminal_maker(&path, number)
                && FileType::from_raw_mode(found.st_mode) == FileType::Symlink
            {
                return Ok(());
            }
            if found.st_rdev != number || FileType::from_raw_mode(found.st_mode) != kind {
                return Err(Errno::EXIST);
            }
            chmodat(&parent, name, mode, AtFlags::empty())?;
        }
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether this is the host's maker of pseudo terminals. All of the host's devices include it, and a container has a link
/// to one that makes its own terminals instead. Source: runc, `setupPtmx`.
fn is_own_terminal_maker(path: &Path, number: u64) -> bool {
    path == Path::new("/dev/ptmx") && number == makedev(5, 2)
}

/// Opens `/dev/null` of the container if it is the real one: a file that hides others must not be the image's.
pub(crate) fn null(inside: &Inside) -> Result<std::os::fd::OwnedFd, Errno> {
    let fd = inside.find(Path::new("/dev/null"))?;
    let stat = statat(&fd, "", AtFlags::EMPTY_PATH)?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if is_null { Ok(fd) } else { Err(Errno::NODEV) }
}
