//! A machine for one case: roots in a temporary directory, a busybox image, an engine that may be opened again.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker::{ContainerConfig, ContainerCreateRequest, HostConfig};
use engine::{AttachOptions, Engine, EngineConfig, RemoveOptions, WaitCondition};

pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";
/// No case may take longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// A case that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names the cases of a file.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, fn(World) -> $crate::world::Running)] =
            &[$((stringify!($name), |world| Box::pin($name(world)))),*];
    };
}

pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) root: PathBuf,
    pub(crate) parent: String,
    /// The engine once more, so that it is shut down when the case panics.
    current: Arc<Mutex<Option<Engine>>>,
    _dir: Arc<tempfile::TempDir>,
}

impl World {
    pub(crate) async fn new() -> World {
        let dir = tempfile::Builder::new().prefix("engine-test-").tempdir().unwrap();
        let root = dir.path().to_owned();
        let name = root.file_name().unwrap().to_str().unwrap();
        let parent = format!("/{}", name.replace('.', "-"));
        let engine = open(&root, &parent).await;
        let current = Arc::new(Mutex::new(Some(engine.clone())));
        let world = World { engine, root, parent, current, _dir: Arc::new(dir) };
        world.import(&["ENV FROM_IMAGE=yes", "CMD [\"sh\"]"], "busybox:latest").await;
        world
    }

    pub(crate) async fn import(&self, changes: &[&str], reference: &str) {
        let archive = busybox_archive();
        let stream = futures_util::stream::iter([Ok(bytes::Bytes::from(archive))]);
        let options = images::ImportOptions {
            reference: Some(reference.into()),
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
            ..Default::default()
        };
        let images = self.engine.images();
        images.import(Box::pin(stream), options, images::ProgressSender::none()).await.unwrap();
    }

    /// The daemon is stopped and started again, as far as one process can do that.
    pub(crate) async fn reopen(&mut self) {
        self.away().await;
        self.back().await;
    }

    /// The engine is shut down; another one, on other roots, takes its place.
    pub(crate) async fn away(&mut self) {
        self.engine.shutdown().await;
        self.current.lock().unwrap().take();
        // The last handles close the network's thread and the shims' connections; the placeholder has neither.
        let other = placeholder(&self.root).await;
        drop(std::mem::replace(&mut self.engine, other));
    }

    /// An engine on the world's roots again.
    pub(crate) async fn back(&mut self) {
        let new = open(&self.root, &self.parent).await;
        *self.current.lock().unwrap() = Some(new.clone());
        std::mem::replace(&mut self.engine, new).shutdown().await;
    }

    pub(crate) fn cleanup(&self) -> Cleanup {
        let (root, parent) = (self.root.clone(), self.parent.clone());
        Cleanup { root, parent, current: self.current.clone(), _dir: self._dir.clone() }
    }

    /// Creates a container that runs `sh -c script`.
    pub(crate) async fn create(&self, script: &str, host: HostConfig) -> String {
        let config = shell(script);
        self.create_with(ContainerCreateRequest { config, host_config: host, ..Default::default() }).await
    }

    pub(crate) async fn create_with(&self, request: ContainerCreateRequest) -> String {
        self.engine.create(request).await.unwrap().id
    }

    /// Runs a script to its end; returns its exit code and what it wrote.
    pub(crate) async fn run(&self, script: &str, host: HostConfig) -> (i64, String) {
        let id = self.create(script, host).await;
        let outcome = self.run_created(&id).await;
        self.engine.remove(&id, RemoveOptions { force: true, volumes: true }).await.unwrap();
        outcome
    }

    pub(crate) async fn run_created(&self, id: &str) -> (i64, String) {
        let options = AttachOptions { stdin: false, stdout: true, stderr: true };
        let mut attached = self.engine.attach(id, options).await.unwrap();
        let waiter = self.engine.wait(id, WaitCondition::NextExit).await.unwrap();
        self.engine.start(id).await.unwrap();
        let mut output = Vec::new();
        while let Some((_, bytes)) = attached.output.next().await {
            output.extend_from_slice(&bytes);
        }
        let code = waiter.finished().await.status_code;
        (code, String::from_utf8_lossy(&output).into_owned())
    }

    /// Waits until the container's state fits, looking at each change.
    pub(crate) async fn until(&self, id: &str, fits: impl Fn(&engine::ContainerState) -> bool) {
        let mut changes = self.engine.watch();
        loop {
            if self.engine.state(id).is_some_and(|state| fits(&state)) {
                return;
            }
            changes.next().await.expect("the engine lives");
        }
    }
}

/// An engine on other roots, so that the field is never empty.
async fn placeholder(root: &Path) -> Engine {
    open(&root.join("placeholder"), "/engine-test-placeholder").await
}

/// The last engine's network thread may need a moment to let go of the bridge.
async fn open_network(config: network::NetworkConfig) -> network::Network {
    let began = std::time::Instant::now();
    loop {
        match network::Network::open(config.clone()) {
            Err(network::OpenError::InUse { .. }) if began.elapsed() < LONGEST => {
                tokio::task::yield_now().await
            }
            other => return other.unwrap(),
        }
    }
}

pub(crate) async fn open(root: &Path, parent: &str) -> Engine {
    std::fs::create_dir_all(root).unwrap();
    let data = root.join("data");
    let images = images::Store::open(data.join("images"), Default::default()).await.unwrap();
    let mut config = network::NetworkConfig::new(&data, &root.join("exec"));
    let is_placeholder = root.ends_with("placeholder");
    config.bridge = if is_placeholder { "skeptmp" } else { "skeptest" }.to_owned();
    let network = open_network(config).await;
    let engine = Engine::open(EngineConfig {
        data_root: data,
        exec_root: root.join("exec"),
        cgroup_parent: parent.to_owned(),
        shim_exe: std::env::current_exe().unwrap(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        log_driver: "json-file".into(),
        log_options: Default::default(),
        open_files: Some(engine::OpenFiles { soft: 321, hard: 654 }),
        images,
        network: network.clone(),
    })
    .await
    .unwrap();
    network.release_hold().await.unwrap();
    engine
}

/// What is left after a case must be nothing.
pub(crate) struct Cleanup {
    root: PathBuf,
    parent: String,
    current: Arc<Mutex<Option<Engine>>>,
    _dir: Arc<tempfile::TempDir>,
}

impl Cleanup {
    pub(crate) async fn finish(self) {
        let last = self.current.lock().unwrap().take();
        if let Some(last) = last {
            last.shutdown().await;
        }
        let engine = open(&self.root, &self.parent).await;
        for state in engine.states() {
            engine.remove(&state.id, RemoveOptions { force: true, volumes: true }).await.unwrap();
        }
        // The group of the shims goes with the last of them, in the background.
        let mut left = runtime::cgroup::Cgroup::list(&self.parent).unwrap();
        left.retain(|name| name != "shims");
        assert!(left.is_empty(), "cgroups are left: {left:?}");
        for dir in ["data/containers", "exec/containers"] {
            let names: Vec<_> = std::fs::read_dir(self.root.join(dir)).unwrap().collect();
            assert!(names.is_empty(), "{dir} is not empty: {names:?}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.root.to_str().unwrap()), "mounts are left: {mounts}");
        engine.network().shutdown_remove().await;
        engine.shutdown().await;
        let groups = runtime::cgroup::missing_groups(&self.parent).unwrap();
        let trees = runtime::cgroup::missing_groups("/engine-test-none").unwrap();
        assert_eq!(groups.len(), trees.len(), "the parent of the cgroups is left in some trees");
        for file in ["containers", "execs", "cgroups.json"] {
            assert!(!self.root.join("exec").join(file).exists(), "exec/{file} is left");
        }
    }
}

/// A config that runs a script.
pub(crate) fn shell(script: &str) -> ContainerConfig {
    ContainerConfig {
        image: "busybox".into(),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec().into()),
        ..Default::default()
    }
}

/// Host settings without a network of their own: most cases need none and are faster so.
pub(crate) fn plain() -> HostConfig {
    HostConfig { network_mode: "none".into(), ..Default::default() }
}

fn busybox_archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for dir in ["bin", "etc", "tmp", "srv", "srv/sub", "proc", "dev", "sys"] {
        let mode = if dir == "tmp" { 0o1777 } else { 0o755 };
        let path = format!("{dir}/");
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), path, std::io::empty()).unwrap();
    }
    let mut file = |path: &str, mode: u32, content: &[u8]| {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    };
    file("bin/busybox", 0o755, &std::fs::read(BUSYBOX).unwrap());
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nbee:x:1000:1000:bee:/tmp:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\nbee:x:1000:\nhive:x:2000:bee\n");
    file("srv/hello", 0o644, b"hello from the image\n");
    file("srv/sub/deep", 0o600, b"deep\n");
    for name in [
        "sh", "echo", "sleep", "cat", "true", "false", "ls", "id", "kill", "test", "env", "hostname",
        "touch", "wget", "nc", "ip", "mount", "grep", "stat", "pwd", "ulimit", "head", "yes", "httpd",
        "mkdir", "tr", "rm", "ln", "mv",
    ] {
        let path = format!("bin/{name}");
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, path, "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}
