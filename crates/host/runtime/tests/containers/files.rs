//! The root, mounts, hidden paths, and roots that try to break out.

use std::os::unix::fs::symlink;
use std::path::Path;

use runtime::{Device, DeviceKind, Mount, MountFlags, MountSource, Propagation, defaults};

use crate::Test;
use crate::bed::{Bed, bind, chain, succeeded};

pub(crate) const TESTS: &[Test] = &[
    ("writes_go_to_the_upper_layer", writes_go_to_the_upper_layer),
    ("more_than_a_hundred_layers_are_fine", more_than_a_hundred_layers_are_fine),
    ("long_layer_paths_are_fine", long_layer_paths_are_fine),
    ("a_root_without_layers_is_the_upper_directory", a_root_without_layers_is_the_upper_directory),
    ("a_readonly_root_refuses_writes", a_readonly_root_refuses_writes),
    ("files_and_directories_are_bound", files_and_directories_are_bound),
    ("readonly_binds_are_readonly_all_the_way_down", readonly_binds_are_readonly_all_the_way_down),
    ("tmpfs_takes_its_options", tmpfs_takes_its_options),
    ("hostile_links_stay_inside", hostile_links_stay_inside),
    ("mounts_in_proc_are_refused", mounts_in_proc_are_refused),
    ("a_proc_that_is_a_link_is_refused", a_proc_that_is_a_link_is_refused),
    ("dev_is_complete", dev_is_complete),
    ("extra_devices_are_made", extra_devices_are_made),
    ("paths_are_hidden_and_protected", paths_are_hidden_and_protected),
    ("no_mount_of_the_host_is_left", no_mount_of_the_host_is_left),
    ("a_missing_bind_source_is_told", a_missing_bind_source_is_told),
    ("host_mounts_arrive_through_slaves", host_mounts_arrive_through_slaves),
    ("sharing_a_private_mount_is_refused", sharing_a_private_mount_is_refused),
    ("the_working_directory_is_made", the_working_directory_is_made),
    ("sysctls_are_set", sysctls_are_set),
];

fn writes_go_to_the_upper_layer(bed: &Bed) {
    let spec = bed.spec("echo x > /new; rm /etc/group; cat /new");
    assert_eq!(succeeded(bed.run(&spec)), "x\n");
    assert_eq!(std::fs::read_to_string(spec.root.upper.join("new")).unwrap(), "x\n");
    assert!(spec.root.lower[0].join("etc/group").exists());
    assert!(std::fs::read_dir(&spec.root.merged).unwrap().next().is_none(), "the mount shows on the host");
}

fn layers(bed: &Bed, script: &str, count: usize, name: &str) -> runtime::Spec {
    let mut spec = bed.spec(script);
    let folder = bed.fresh();
    let mut lower: Vec<_> = (0..count)
        .map(|number| {
            let layer = folder.join(name).join(number.to_string());
            std::fs::create_dir_all(layer.join("layers")).unwrap();
            std::fs::write(layer.join("layers").join(number.to_string()), "").unwrap();
            std::fs::write(layer.join("who"), number.to_string()).unwrap();
            layer
        })
        .collect();
    lower.append(&mut spec.root.lower);
    spec.root.lower = lower;
    spec
}

fn more_than_a_hundred_layers_are_fine(bed: &Bed) {
    let spec = layers(bed, "ls /layers | wc -l; cat /who", 130, &"n".repeat(60));
    assert_eq!(succeeded(bed.run(&spec)), "130\n0");
}

fn long_layer_paths_are_fine(bed: &Bed) {
    let long = format!("{0}/{0}", "n".repeat(180));
    let spec = layers(bed, "ls /layers | wc -l; cat /who", 40, &long);
    assert_eq!(succeeded(bed.run(&spec)), "40\n0");
}

fn a_root_without_layers_is_the_upper_directory(bed: &Bed) {
    let mut spec = bed.spec("echo x > /new; cat /new");
    spec.root.upper = spec.root.lower.remove(0);
    assert_eq!(succeeded(bed.run(&spec)), "x\n");
    std::fs::remove_file(spec.root.upper.join("new")).unwrap();
}

fn a_readonly_root_refuses_writes(bed: &Bed) {
    let mut spec = bed.spec("touch /x 2>/dev/null && echo bad; touch /dev/shm/x /mnt/y && echo good");
    let source = bed.fresh();
    spec.mounts = defaults::mounts(vec![bind(&source, "/mnt")], defaults::SHM_BYTES, false);
    spec.root.readonly = true;
    assert_eq!(succeeded(bed.run(&spec)), "good\n");
    assert!(source.join("y").exists());
}

fn files_and_directories_are_bound(bed: &Bed) {
    let source = bed.fresh();
    std::fs::write(source.join("file"), "content").unwrap();
    let mut spec = bed.spec("cat /etc/resolv.conf /a/b/file; echo more > /a/b/new");
    let user = vec![bind(&source.join("file"), "/etc/resolv.conf"), bind(&source, "/a/b")];
    spec.mounts = defaults::mounts(user, defaults::SHM_BYTES, false);
    assert_eq!(succeeded(bed.run(&spec)), "contentcontent");
    assert_eq!(std::fs::read_to_string(source.join("new")).unwrap(), "more\n");
}

fn readonly_binds_are_readonly_all_the_way_down(bed: &Bed) {
    let source = bed.fresh();
    std::fs::create_dir(source.join("sub")).unwrap();
    let sub = source.join("sub");
    rustix::mount::mount("tmpfs", &sub, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let script = "touch /m/x 2>/dev/null; echo $?; touch /m/sub/x 2>/dev/null; echo $?";
    let with = |flags: MountFlags| {
        let mut spec = bed.spec(script);
        spec.mounts =
            defaults::mounts(vec![Mount { flags, ..bind(&source, "/m") }], defaults::SHM_BYTES, false);
        succeeded(bed.run(&spec))
    };
    let deep = with(MountFlags { readonly: true, ..MountFlags::default() });
    let top = with(MountFlags { readonly: true, readonly_top_only: true, ..MountFlags::default() });
    rustix::mount::unmount(&sub, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!((deep.as_str(), top.as_str()), ("1\n1\n", "1\n0\n"));
}

fn tmpfs_takes_its_options(bed: &Bed) {
    let mut spec = bed.spec("grep ' /t ' /proc/mounts; stat -c %a /t; stat -c %a /tmp");
    let tmpfs = |target: &str, data: &str| Mount {
        target: target.into(),
        source: MountSource::Tmpfs { data: data.into() },
        flags: MountFlags { nosuid: true, nodev: true, noexec: true, ..MountFlags::default() },
    };
    let user = vec![tmpfs("/t", "size=64k,mode=0710"), tmpfs("/tmp", "")];
    spec.mounts = defaults::mounts(user, defaults::SHM_BYTES, false);
    let out = succeeded(bed.run(&spec));
    assert!(out.contains("nosuid,nodev,noexec") && out.contains("size=64k"), "{out}");
    assert!(out.ends_with("710\n1777\n"), "a tmpfs keeps the permissions of what it covers: {out}");
}

fn hostile_links_stay_inside(bed: &Bed) {
    let outside = bed.fresh();
    let secret = bed.fresh();
    std::fs::write(secret.join("data"), "mine").unwrap();
    let mut spec = bed.spec("cat /abs/data /rel/data /deep/data /dev/evil/data");
    let upper = &spec.root.upper;
    symlink(&outside, upper.join("abs")).unwrap();
    symlink("../../../../../../../../../../../tmp/runtime-rel", upper.join("rel")).unwrap();
    symlink("/proc/1/root/tmp/runtime-deep", upper.join("loop")).unwrap();
    symlink("/proc/self/cwd/../..", upper.join("deep")).unwrap();
    let user = vec![bind(&secret, "/abs"), bind(&secret, "/rel"), bind(&secret, "/dev/evil")];
    spec.mounts = defaults::mounts(user.clone(), defaults::SHM_BYTES, false);
    spec.process.args = vec!["cat".into(), "/abs/data".into(), "/rel/data".into(), "/dev/evil/data".into()];
    assert_eq!(succeeded(bed.run(&spec)), "minemineminemine".strip_suffix("mine").unwrap());
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
    assert!(!Path::new("/tmp/runtime-rel").exists());
    for name in ["/loop", "/deep"] {
        let mut again = spec.clone();
        again.mounts = defaults::mounts(vec![bind(&secret, name)], defaults::SHM_BYTES, false);
        let text = chain(&bed.refusal(&again));
        assert_eq!(text, format!("prepare mount target `{name}`: too many levels of symbolic links"));
    }
}

fn mounts_in_proc_are_refused(bed: &Bed) {
    let source = bed.fresh();
    for target in ["/proc", "/proc/sys/kernel", "/proc/self", "/etc/../proc/1"] {
        let mut spec = bed.spec("true");
        spec.mounts.push(bind(&source, target));
        let text = chain(&bed.refusal(&spec));
        let expect = ["mount inside /proc at", "prepare mount target"];
        assert!(expect.iter().any(|start| text.starts_with(start)), "{target}: {text}");
    }
}

fn a_proc_that_is_a_link_is_refused(bed: &Bed) {
    let mut spec = bed.spec("true");
    // The layer must not have a directory there.
    let base = spec.root.lower.remove(0);
    let layer = bed.fresh();
    for name in ["bin", "etc"] {
        symlink(base.join(name), layer.join(name)).unwrap();
    }
    symlink("/tmp", layer.join("proc")).unwrap();
    spec.root.lower = vec![layer];
    let text = chain(&bed.refusal(&spec));
    assert_eq!(text, "prepare mount target `/proc`: too many levels of symbolic links");
}

fn dev_is_complete(bed: &Bed) {
    let out = bed.output(
        "ls /dev | tr '\\n' ' '; stat -c '%a %t:%T' /dev/null /dev/tty; readlink /dev/ptmx; readlink /dev/fd; \
         echo x > /dev/null; head -c 3 /dev/zero | wc -c; stat -c %a /dev/shm; grep -c mqueue /proc/mounts",
    );
    assert_eq!(
        out,
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \
         666 1:3\n666 5:0\npts/ptmx\n/proc/self/fd\n3\n1777\n1\n"
    );
}

fn extra_devices_are_made(bed: &Bed) {
    let mut spec = bed.spec("stat -c '%a %t:%T %u' /dev/net/tun; stat -c %F /dev/loop7; readlink /dev/ptmx");
    let tun = Device {
        path: "/dev/net/tun".into(),
        kind: DeviceKind::Char,
        major: 10,
        minor: 200,
        mode: 0o620,
        uid: 33,
        gid: 0,
    };
    let block =
        Device { path: "/dev/loop7".into(), kind: DeviceKind::Block, major: 7, minor: 7, ..tun.clone() };
    // The host's own, as a privileged container is given it: that of the container stays.
    let terminals = Device { path: "/dev/ptmx".into(), major: 5, minor: 2, ..tun.clone() };
    spec.devices = vec![tun, block, terminals];
    assert_eq!(succeeded(bed.run(&spec)), "620 a:c8 33\nblock special file\npts/ptmx\n");
}

fn paths_are_hidden_and_protected(bed: &Bed) {
    let out = bed.output(
        "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x 2>/dev/null; \
         echo $?; echo 1 2>/dev/null > /proc/sys/kernel/hostname; echo $?; echo 0 2>/dev/null > /proc/sysrq-trigger; \
         echo $?; mkdir /sys/fs/cgroup/x 2>/dev/null; echo $?; grep -c ' /sys sysfs ro' /proc/mounts",
    );
    assert_eq!(out, "0\n0\n1\n1\n1\n1\n1\n");
}

fn no_mount_of_the_host_is_left(bed: &Bed) {
    let out = bed.output("cut -d' ' -f2 /proc/mounts | sort -u | grep -v -e ^/proc -e ^/sys -e ^/dev");
    assert_eq!(out, "/\n");
}

fn a_missing_bind_source_is_told(bed: &Bed) {
    let mut spec = bed.spec("true");
    spec.mounts.push(bind(Path::new("/no/such/source"), "/x"));
    assert_eq!(chain(&bed.refusal(&spec)), "bind mount source `/no/such/source`: no such file or directory");
}

/// A directory that is a shared mount for the time of a test.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(path: std::path::PathBuf) -> Self {
        rustix::mount::mount_bind(&path, &path).unwrap();
        rustix::mount::mount_change(&path, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        Self(path)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn host_mounts_arrive_through_slaves(bed: &Bed) {
    let shared = Shared::new(bed.fresh());
    std::fs::create_dir(shared.0.join("later")).unwrap();
    for (propagation, expect) in [(Propagation::Rslave, "there\n"), (Propagation::Rprivate, "")] {
        let mut spec = bed.spec("read go; cat /s/later/file 2>/dev/null; true");
        spec.process.stdin = true;
        let source = MountSource::Bind {
            path: shared.0.clone(),
            subpath: Default::default(),
            recursive: true,
            propagation,
        };
        spec.mounts.push(Mount { source, ..bind(&shared.0, "/s") });
        let mut created = runtime::create(&spec).unwrap();
        created.start().unwrap();
        let later = shared.0.join("later");
        rustix::mount::mount("tmpfs", &later, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        std::fs::write(later.join("file"), "there\n").unwrap();
        let out = succeeded(crate::bed::finish(created));
        rustix::mount::unmount(&later, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(out, expect, "{propagation:?}");
    }
}

fn sharing_a_private_mount_is_refused(bed: &Bed) {
    let source = bed.fresh();
    rustix::mount::mount_bind(&source, &source).unwrap();
    rustix::mount::mount_change(&source, rustix::mount::MountPropagationFlags::PRIVATE).unwrap();
    let mut spec = bed.spec("true");
    let bound = MountSource::Bind {
        path: source.clone(),
        subpath: Default::default(),
        recursive: true,
        propagation: Propagation::Rshared,
    };
    spec.mounts.push(Mount { source: bound, ..bind(&source, "/s") });
    let text = chain(&bed.refusal(&spec));
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(text.starts_with("share mounts of"), "{text}");
}

fn the_working_directory_is_made(bed: &Bed) {
    let mut spec = bed.spec("pwd; stat -c %u .");
    spec.process.cwd = "/a/new/place".into();
    spec.process.user = "web".into();
    assert_eq!(succeeded(bed.run(&spec)), "/a/new/place\n0\n");
}

fn sysctls_are_set(bed: &Bed) {
    let mut spec =
        bed.spec("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced");
    spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    spec.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    assert_eq!(succeeded(bed.run(&spec)), "0\n1\n");
    spec.sysctls.insert("net.no.such".into(), "1".into());
    assert_eq!(chain(&bed.refusal(&spec)), "set kernel parameter `net.no.such`: no such file or directory");
}
