//! Puts a spec's mounts in place on the new root, and hides or write-protects paths.
//!
//! In: the mounts, with their sources opened while the host's tree was still there. Out: mounts on targets that were
//! found inside the root. Runs in the new process only.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, fstatfs, statat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::cgroup::View;
use crate::devices;
use crate::error::Step;
use crate::inside::{Inside, Missing, clean, find_below, is_directory};
use crate::root::copy_of;
use crate::spec::{Mount, MountFlags, MountSource, Propagation};
use crate::sys::{self, MountAttr};
use crate::wire::{AtStep, Failure};

/// Source: `linux/mount.h`, `MOUNT_ATTR_*`.
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME_MASK: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;

/// Files in `/proc` that may be replaced by others. Source: runc, `checkProcMount` (lxcfs serves them).
const REPLACEABLE_IN_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Opens the sources of all binds; `None` for other mounts. To be called in the new mount namespace while it is still
/// joined to the host's, so that shared mounts stay shared.
pub(crate) fn open_sources(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    mounts.iter().map(|mount| open_source(&mount.source)).collect()
}

fn open_source(source: &MountSource) -> Result<Option<OwnedFd>, Failure> {
    let MountSource::Bind { path, subpath, recursive, propagation } = source else { return Ok(None) };
    let tree = if subpath.as_os_str().is_empty() {
        copy_of(CWD, path, *recursive)
    } else {
        find_below(path, subpath).and_then(|found| copy_of(found, Path::new(""), *recursive))
    }
    .map_err(|errno| {
        // Joining nothing would add a slash.
        let whole = if subpath.as_os_str().is_empty() { path.clone() } else { path.join(subpath) };
        Failure::BindSource { path: whole.to_string_lossy().into_owned(), errno }
    })?;
    let needs = match propagation {
        Propagation::Shared | Propagation::Rshared => &["shared:"][..],
        Propagation::Slave | Propagation::Rslave => &["shared:", "master:"][..],
        Propagation::Private | Propagation::Rprivate => &[][..],
    };
    if !needs.is_empty() && !travels(path, needs).at(Step::Propagation, path.to_string_lossy())? {
        return Err(Errno::INVAL).at(Step::Propagation, path.to_string_lossy());
    }
    Ok(Some(tree))
}

/// Whether the mount that `path` is on has one of these marks in `/proc/self/mountinfo`.
fn travels(path: &Path, marks: &[&str]) -> Result<bool, Errno> {
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id.to_string();
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| Errno::IO)?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(&id)).ok_or(Errno::NOENT)?;
    let mut optional = line.split(' ').skip(6).take_while(|field| *field != "-");
    Ok(optional.any(|field| marks.iter().any(|mark| field.starts_with(mark))))
}

/// Puts the binds among `mounts` in place below a root that is not this process's, and leaves the others out.
pub(crate) fn bind_all(inside: &Inside, mounts: &[Mount]) -> Result<(), Failure> {
    for mount in mounts {
        let MountSource::Bind { recursive, .. } = &mount.source else { continue };
        let Some(tree) = open_source(&mount.source)? else { continue };
        let target = mount.target.to_string_lossy();
        let is_directory = is_directory(&tree).at(Step::Mount, &target)?;
        let missing = if is_directory { Missing::Directory } else { Missing::File };
        let at = inside.find_or_make(&mount.target, missing).at(Step::MountTarget, &target)?;
        // Nothing that is mounted here later on is to travel anywhere.
        restrict_copy(&tree, mount.flags, *recursive, Propagation::Rprivate).at(Step::Mount, &target)?;
        attach(&tree, &at).at(Step::Mount, &target)?;
    }
    Ok(())
}

/// Where mounts go, and what they need besides their spec.
pub(crate) struct Place<'a> {
    /// The new root, which is `/` of this process by now.
    pub(crate) inside: &'a Inside,
    /// What the container sees of the cgroups.
    pub(crate) cgroups: &'a mut View,
}

impl Place<'_> {
    /// Puts one mount in place.
    pub(crate) fn mount(&mut self, mount: &Mount, source: Option<OwnedFd>) -> Result<(), Failure> {
        let target = mount.target.to_string_lossy();
        match &mount.source {
            MountSource::Bind { propagation, recursive, .. } => {
                let tree = source.expect("the source of every bind was opened");
                let missing = if is_directory(&tree).at(Step::Mount, &target)? {
                    Missing::Directory
                } else {
                    Missing::File
                };
                let at = self.user_target(mount, missing)?;
                restrict_copy(&tree, mount.flags, *recursive, *propagation).at(Step::Mount, &target)?;
                attach(&tree, &at).at(Step::Mount, &target)
            }
            MountSource::Tmpfs { data } => {
                let mode = self.mode_of(&mount.target);
                let at = self.user_target(mount, Missing::Directory)?;
                let options = mode.into_iter().chain(data.split(',').map(ToOwned::to_owned));
                let tree = make("tmpfs", options, mount.flags).at(Step::Mount, &target)?;
                attach(&tree, &at).at(Step::Mount, &target)
            }
            MountSource::Dev => {
                let at = self.plain_target(&mount.target)?;
                // Source: moby, `daemon/pkg/oci/defaults.go`.
                let options = ["mode=755".to_owned(), "size=65536k".to_owned()];
                let tree = make("tmpfs", options, mount.flags).at(Step::Mount, &target)?;
                attach(&tree, &at).at(Step::Mount, &target)?;
                devices::fill(&tree)
            }
            MountSource::Devpts => {
                // `newinstance` is what every mount does since Linux 4.7. Group 5 is `tty` everywhere.
                let options = ["ptmxmode=0666".to_owned(), "mode=0620".to_owned(), "gid=5".to_owned()];
                self.special(mount, "devpts", options)
            }
            MountSource::Proc => self.special(mount, "proc", []),
            MountSource::Sysfs => self.special(mount, "sysfs", []),
            MountSource::Mqueue => self.special(mount, "mqueue", []),
            MountSource::Cgroup => self.cgroup(mount),
        }
    }

    fn special<const N: usize>(
        &self,
        mount: &Mount,
        kind: &str,
        options: [String; N],
    ) -> Result<(), Failure> {
        let at = self.plain_target(&mount.target)?;
        let target = mount.target.to_string_lossy();
        let tree = make(kind, options, mount.flags).at(Step::Mount, &target)?;
        attach(&tree, &at).at(Step::Mount, &target)
    }

    fn cgroup(&mut self, mount: &Mount) -> Result<(), Failure> {
        let target = mount.target.to_string_lossy();
        let View::V1 { trees } = self.cgroups else { return self.special(mount, "cgroup2", []) };
        let at =
            self.inside.find_or_make(&mount.target, Missing::Directory).at(Step::MountTarget, &target)?;
        // The directory itself becomes read-only last, when all is in place.
        let top = MountFlags { readonly: false, ..mount.flags };
        let folder = make("tmpfs", ["mode=755".to_owned()], top).at(Step::Mount, &target)?;
        attach(&folder, &at).at(Step::Mount, &target)?;
        for tree in std::mem::take(trees) {
            rustix::fs::mkdirat(&folder, &*tree.name, rustix::fs::Mode::from(0o755))
                .at(Step::Mount, &target)?;
            let place = rustix::fs::openat(
                &folder,
                &*tree.name,
                OFlags::PATH | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .at(Step::Mount, &target)?;
            restrict_copy(&tree.copy, mount.flags, false, Propagation::Rprivate)
                .at(Step::Mount, &tree.name)?;
            attach(&tree.copy, &place).at(Step::Mount, &tree.name)?;
            for link in &tree.links {
                rustix::fs::symlinkat(&*tree.name, &folder, &**link).at(Step::MakeLink, link)?;
            }
        }
        if mount.flags.readonly {
            let attr = MountAttr { set: RDONLY, ..Default::default() };
            sys::mount_setattr(&folder, c"", libc::AT_EMPTY_PATH, attr).at(Step::ReadOnly, &target)?;
        }
        Ok(())
    }

    /// The permissions of a directory that a tmpfs will cover, as an option of it. Source: runc, `rootfs_linux.go`.
    fn mode_of(&self, target: &Path) -> Option<String> {
        let covered = self.inside.find(&clean(target)).ok()?;
        let stat = statat(&covered, "", AtFlags::EMPTY_PATH).ok()?;
        Some(format!("mode={:04o}", stat.st_mode & 0o7777))
    }

    /// The target of a kernel file system: a real directory, for a link there could only be a trap.
    fn plain_target(&self, target: &Path) -> Result<OwnedFd, Failure> {
        let path = clean(target);
        let name = target.to_string_lossy();
        self.inside.find_or_make(&path, Missing::Directory).at(Step::MountTarget, &name)?;
        self.inside.find_plain(&path).at(Step::MountTarget, &name)
    }

    /// The target of a user's mount, which may be anywhere but in `/proc`: what programs believe of the kernel must
    /// come from the kernel.
    fn user_target(&self, mount: &Mount, missing: Missing) -> Result<OwnedFd, Failure> {
        // Source: `linux/magic.h`.
        const PROC_MAGIC: u64 = 0x9fa0;
        let path = clean(&mount.target);
        let name = mount.target.to_string_lossy();
        let at = self.inside.find_or_make(&path, missing).at(Step::MountTarget, &name)?;
        let in_proc = fstatfs(&at).at(Step::MountTarget, &name)?.f_type as u64 == PROC_MAGIC;
        let allowed = REPLACEABLE_IN_PROC.iter().any(|file| Path::new(file) == path);
        if (in_proc && !allowed) || path == Path::new("/proc") || path == Path::new("/") {
            return Err(Errno::PERM).at(Step::ForbiddenTarget, &name);
        }
        Ok(at)
    }
}

/// Makes a new file system that is mounted nowhere yet.
fn make(kind: &str, options: impl IntoIterator<Item = String>, flags: MountFlags) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&fs, key, value)?,
            None if option.is_empty() => {}
            None => fsconfig_set_flag(&fs, &*option)?,
        }
    }
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes(flags)).unwrap_or(0));
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attributes(flags: MountFlags) -> u64 {
    let mut set = 0;
    for (wanted, bit) in [
        (flags.readonly, RDONLY),
        (flags.nosuid, NOSUID),
        (flags.nodev, NODEV),
        (flags.noexec, NOEXEC),
        (flags.noatime, NOATIME),
        (flags.strictatime && !flags.noatime, STRICTATIME),
    ] {
        if wanted {
            set |= bit;
        }
    }
    set
}

/// Sets propagation and restrictions of a copied mount before anybody can see it.
fn restrict_copy(
    tree: &OwnedFd,
    flags: MountFlags,
    recursive: bool,
    propagation: Propagation,
) -> Result<(), Errno> {
    let (kind, deep) = match propagation {
        Propagation::Private => (libc::MS_PRIVATE, false),
        Propagation::Rprivate => (libc::MS_PRIVATE, true),
        Propagation::Slave => (libc::MS_SLAVE, false),
        Propagation::Rslave => (libc::MS_SLAVE, true),
        Propagation::Shared => (libc::MS_SHARED, false),
        Propagation::Rshared => (libc::MS_SHARED, true),
    };
    let depth =
        |deep: bool| if deep { libc::AT_EMPTY_PATH | libc::AT_RECURSIVE } else { libc::AT_EMPTY_PATH };
    sys::mount_setattr(tree, c"", depth(deep), MountAttr { propagation: kind, ..Default::default() })?;
    let set = attributes(flags);
    if set == 0 {
        return Ok(());
    }
    let clear = if set & ATIME_MASK == 0 { 0 } else { ATIME_MASK };
    sys::mount_setattr(tree, c"", libc::AT_EMPTY_PATH, MountAttr { set, clear, ..Default::default() })?;
    if flags.readonly && recursive && !flags.readonly_top_only {
        sys::mount_setattr(tree, c"", depth(true), MountAttr { set: RDONLY, ..Default::default() })?;
    }
    Ok(())
}

fn attach(tree: &OwnedFd, at: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", at, "", flags)
}

/// Hides files behind `/dev/null` and directories behind an empty directory.
pub(crate) fn mask(inside: &Inside, paths: &[String]) -> Result<(), Failure> {
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for path in paths {
        let target = match inside.find(Path::new(path)) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(errno).at(Step::Mask, path),
        };
        if is_directory(&target).at(Step::Mask, path)? {
            // One empty file system serves all: the first is mounted, the rest are copies of that mount.
            let tree = match &empty {
                Some(first) => copy_of(first, Path::new(""), false),
                None => make("tmpfs", [], MountFlags { readonly: true, ..MountFlags::default() }),
            }
            .at(Step::Mask, path)?;
            attach(&tree, &target).at(Step::Mask, path)?;
            empty.get_or_insert(tree);
        } else {
            let source = match &null {
                Some(source) => source,
                None => null.insert(devices::null(inside).at(Step::Mask, "/dev/null")?),
            };
            let tree = copy_of(source, Path::new(""), false).at(Step::Mask, path)?;
            attach(&tree, &target).at(Step::Mask, path)?;
        }
    }
    Ok(())
}

/// Makes paths read-only by mounting them on themselves.
pub(crate) fn protect(inside: &Inside, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let target = match inside.find(Path::new(path)) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(errno).at(Step::ReadOnly, path),
        };
        let tree = copy_of(&target, Path::new(""), true).at(Step::ReadOnly, path)?;
        let attr = MountAttr { set: RDONLY, ..Default::default() };
        sys::mount_setattr(&tree, c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, attr)
            .at(Step::ReadOnly, path)?;
        attach(&tree, &target).at(Step::ReadOnly, path)?;
    }
    Ok(())
}

/// Makes the root itself read-only; mounts on it keep what they are.
pub(crate) fn protect_root(inside: &Inside) -> Result<(), Failure> {
    let attr = MountAttr { set: RDONLY, ..Default::default() };
    sys::mount_setattr(inside.root(), c"", libc::AT_EMPTY_PATH, attr).at(Step::ReadOnly, "/")
}

/// Puts the terminal's other side at `/dev/console`. Source: OCI runtime specification, "Default Devices".
pub(crate) fn console(inside: &Inside, terminal: impl AsFd) -> Result<(), Failure> {
    let target =
        inside.find_or_make(Path::new("/dev/console"), Missing::File).at(Step::Terminal, "/dev/console")?;
    let tree = copy_of(terminal, Path::new(""), false).at(Step::Terminal, "/dev/console")?;
    attach(&tree, &target).at(Step::Terminal, "/dev/console")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_kernels_attributes() {
        let all = MountFlags {
            readonly: true,
            nosuid: true,
            nodev: true,
            noexec: true,
            noatime: true,
            strictatime: true,
            ..MountFlags::default()
        };
        assert_eq!(attributes(all), 0x1f);
        assert_eq!(attributes(MountFlags::default()), 0);
        assert_eq!(attributes(MountFlags { strictatime: true, ..MountFlags::default() }), STRICTATIME);
    }
}
