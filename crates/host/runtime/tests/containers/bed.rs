//! What every test needs: layers, a spec to start from, and a way to run a script in a container.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::cgroup::Cgroup;
use runtime::{
    CgroupSpec, Created, ExecSpec, Mount, MountFlags, MountSource, Namespaces, Network, ProcessSpec,
    Propagation, Root, Spec, StartError, Stdio, defaults, seccomp,
};

/// The one program in all containers.
pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";

/// Everything the tests share.
pub(crate) struct Bed {
    folder: PathBuf,
    /// Parent of all cgroups of this run.
    pub(crate) parent: String,
    count: Cell<u32>,
}

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("runtime-test-{}", std::process::id()));
        let base = folder.join("base");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        std::fs::set_permissions(base.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        std::fs::copy(BUSYBOX, base.join("bin/busybox")).unwrap();
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        std::fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:\n")
            .unwrap();
        std::fs::write(base.join("etc/group"), "root:x:0:\nwww:x:34:\nvideo:x:44:web\n").unwrap();
        let parent = format!("/skep-runtime-test-{}", std::process::id());
        Self { folder, parent, count: Cell::new(0) }
    }

    /// A new directory for one test.
    pub(crate) fn fresh(&self) -> PathBuf {
        // Copies of this program by `fork` share the folder, not the count.
        self.count.set(self.count.get() + 1);
        let path = self.folder.join(format!("{}-{}", std::process::id(), self.count.get()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A spec like Docker's for `sh -c script`.
    pub(crate) fn spec(&self, script: &str) -> Spec {
        let folder = self.fresh();
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Spec {
            root: Root {
                lower: vec![self.folder.join("base")],
                upper: folder.join("upper"),
                work: folder.join("work"),
                merged: folder.join("merged"),
                readonly: false,
            },
            namespaces: Namespaces::default(),
            hostname: "box".into(),
            domainname: String::new(),
            mounts: defaults::mounts(Vec::new(), defaults::SHM_BYTES, false),
            masked_paths: defaults::masked_paths(),
            readonly_paths: defaults::readonly_paths(),
            devices: Vec::new(),
            device_rules: defaults::device_rules(false),
            sysctls: BTreeMap::new(),
            cgroup: CgroupSpec {
                parent: self.parent.clone(),
                name: format!("c{}-{}", std::process::id(), self.count.get()),
                ..CgroupSpec::default()
            },
            network: Network::None,
            process: ProcessSpec {
                args: strings(&["sh", "-c", script]),
                env: strings(&["PATH=/bin:/usr/bin"]),
                cwd: "/".into(),
                user: String::new(),
                groups: Vec::new(),
                capabilities: defaults::capabilities(),
                no_new_privileges: false,
                rlimits: Vec::new(),
                terminal: None,
                stdin: false,
                oom_score_adj: None,
                seccomp: seccomp::Profile::Default,
            },
            init: false,
        }
    }

    /// Runs a spec to its end.
    pub(crate) fn run(&self, spec: &Spec) -> Ended {
        let mut created = runtime::create(spec).unwrap_or_else(|error| panic!("create: {}", chain(&error)));
        created.start().unwrap_or_else(|error| panic!("start: {}", chain(&error)));
        finish(created)
    }

    /// Runs a script in an ordinary container; it must succeed. Gives its output.
    pub(crate) fn output(&self, script: &str) -> String {
        succeeded(self.run(&self.spec(script)))
    }

    /// Why a container cannot be created or started.
    pub(crate) fn refusal(&self, spec: &Spec) -> StartError {
        match runtime::create(spec) {
            Err(error) => error,
            Ok(mut created) => {
                let error = created.start().expect_err("the container must not start");
                created.cgroup.take().unwrap().remove().unwrap();
                error
            }
        }
    }

    /// An extra process for `sh -c script` in a running container.
    pub(crate) fn exec_spec(&self, spec: &Spec, target: &Created, script: &str) -> ExecSpec {
        let mut process = spec.process.clone();
        process.args = vec!["sh".into(), "-c".into(), script.into()];
        ExecSpec { target_pid: target.pid, target_start_time: runtime::start_time(target.pid), process }
    }

    /// Removes everything and says what should have been gone already.
    pub(crate) fn take_down(self) -> Vec<String> {
        let mut left: Vec<String> = Cgroup::list(&self.parent).unwrap();
        for name in &left {
            Cgroup::open(&self.parent, name).unwrap().remove().unwrap();
        }
        Cgroup::open("/", self.parent.trim_start_matches('/')).unwrap().remove().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.folder.to_str().unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(ours)).map(ToOwned::to_owned));
        // SAFETY is the library's business; a child that was not reaped shows here.
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        left.extend(children.split_whitespace().map(|pid| format!("process {pid}")));
        std::fs::remove_dir_all(&self.folder).unwrap();
        left
    }
}

/// A bind mount with Docker's usual settings.
pub(crate) fn bind(source: &Path, target: &str) -> Mount {
    Mount {
        target: target.into(),
        source: MountSource::Bind {
            path: source.to_owned(),
            subpath: Default::default(),
            recursive: true,
            propagation: Propagation::Rprivate,
        },
        flags: MountFlags::default(),
    }
}

/// The output of a container that must have succeeded.
pub(crate) fn succeeded(ended: Ended) -> String {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    ended.out
}

/// Reads the pipes of a started process, reaps it, and removes its cgroup.
pub(crate) fn finish(mut created: Created) -> Ended {
    let (mut out, mut err) = (String::new(), String::new());
    match created.stdio.take() {
        Some(Stdio::Pipes { stdin, stdout, stderr }) => {
            drop(stdin);
            File::from(stdout).read_to_string(&mut out).unwrap();
            File::from(stderr).read_to_string(&mut err).unwrap();
        }
        Some(Stdio::Terminal { master }) => {
            // The end of a terminal is an error, not the end of a file.
            let mut bytes = Vec::new();
            drop(File::from(master).read_to_end(&mut bytes));
            out = String::from_utf8_lossy(&bytes).into_owned();
        }
        None => {}
    }
    let code = wait(created.pid);
    if let Some(group) = created.cgroup.take() {
        group.remove().unwrap();
    }
    Ended { code, out, err }
}

/// Reaps a child; 128 and more for a signal.
pub(crate) fn wait(pid: i32) -> i32 {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let (_, status) =
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
}

/// The texts of an error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
