//! The agent against a small fake of the engine and of a manager: what it does, in which order, and what it reports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::{ContainerState, Status};
use network::ServicePort;
use objects::{PortConfig, TaskSpec};
use tokio::sync::mpsc;

use super::*;

/// Containers that only exist in memory; every call is written down.
#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<BTreeMap<String, ContainerState>>>,
    calls: mpsc::UnboundedSender<String>,
    changes: Arc<Mutex<Vec<mpsc::UnboundedSender<Found>>>>,
    image_is_missing: bool,
    /// Look-ups of an address that still fail.
    failing_details: Arc<AtomicUsize>,
    /// Containers end as soon as their address is looked up.
    is_short_lived: bool,
    stop_hangs: bool,
}

struct FakeWatch(mpsc::UnboundedReceiver<Found>);

impl Watch for FakeWatch {
    async fn next(&mut self) -> Option<Seen> {
        self.0.recv().await.map(Seen::Changed)
    }
}

impl Fake {
    fn set(&self, name: &str, status: Status, exit_code: i64) {
        self.set_with(name, status, exit_code, None);
    }

    fn set_with(
        &self,
        name: &str,
        status: Status,
        exit_code: i64,
        health: Option<lifecycle::health::Status>,
    ) {
        let state = ContainerState {
            id: name.to_owned(),
            name: name.to_owned(),
            labels: Arc::default(),
            status,
            pid: (status == Status::Running).then_some(42),
            exit_code,
            oom_killed: false,
            error: String::new(),
            health,
            started_at: Timestamp(1),
            finished_at: Timestamp(1),
        };
        self.state.lock().unwrap().insert(name.to_owned(), state.clone());
        let task = TaskId::from(name.rsplit('.').next().unwrap());
        for change in self.changes.lock().unwrap().iter() {
            let _ = change.send(Found { task: task.clone(), state: Arc::new(state.clone()) });
        }
    }

    fn call(&self, what: String) {
        let _ = self.calls.send(what);
    }
}

impl Containers for Fake {
    type Watch = FakeWatch;

    fn watch(&self) -> FakeWatch {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.changes.lock().unwrap().push(sender);
        FakeWatch(receiver)
    }

    fn all(&self) -> Vec<Found> {
        let state = self.state.lock().unwrap();
        let found = |state: &ContainerState| Found {
            task: TaskId::from(state.name.rsplit('.').next().unwrap()),
            state: Arc::new(state.clone()),
        };
        state.values().map(found).collect()
    }

    fn find(&self, task: &Task) -> Option<Arc<ContainerState>> {
        self.state.lock().unwrap().get(&task.name()).cloned().map(Arc::new)
    }

    async fn pull(&self, _task: Arc<Task>, _registry_auth: String) -> Result<(), String> {
        if self.image_is_missing { Err("no route to registry".to_owned()) } else { Ok(()) }
    }

    async fn prepare(&self, task: Arc<Task>, pulled: Result<(), String>) -> Result<(), Failure> {
        if let Err(cause) = pulled {
            return Err(Failure { text: format!("No such image: x: {cause}"), is_passing: false });
        }
        self.call(format!("create {}", task.id));
        self.set(&task.name(), Status::Created, 0);
        Ok(())
    }

    async fn settle(&self) {}

    async fn start(&self, id: String) -> Result<(), Failure> {
        self.call(format!("start {id}"));
        self.set(&id, Status::Running, 0);
        Ok(())
    }

    async fn stop(&self, id: String, _grace_seconds: Option<i64>) -> Result<(), Failure> {
        self.call(format!("stop {id}"));
        if self.stop_hangs {
            std::future::pending::<()>().await;
        }
        self.set(&id, Status::Exited, 143);
        Ok(())
    }

    async fn remove(&self, id: String) -> Result<(), Failure> {
        self.call(format!("remove {id}"));
        self.state.lock().unwrap().remove(&id);
        Ok(())
    }

    async fn details(&self, id: String, _task: Arc<Task>) -> Result<Details, Failure> {
        let one_less = |count: usize| count.checked_sub(1);
        if self.failing_details.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Failure { text: "no answer".to_owned(), is_passing: false });
        }
        if self.is_short_lived {
            self.set(&id, Status::Exited, 9);
        }
        Ok(Details { address: Some("10.0.0.2".parse().unwrap()), ports: Vec::new() })
    }

    async fn publish(&self, service: ServiceId, ports: Vec<ServicePort>) -> Result<(), Failure> {
        let backends = ports.first().map_or(-1, |port| port.backends.len() as i64);
        self.call(format!("publish {service} {backends}"));
        Ok(())
    }
}

#[derive(Clone)]
struct FakeManager {
    assignments: Arc<Mutex<Option<mpsc::UnboundedReceiver<Assignments>>>>,
    reports: mpsc::UnboundedSender<(TaskId, TaskStatus)>,
}

struct FakeSession(mpsc::UnboundedReceiver<Assignments>);

impl Assigned for FakeSession {
    async fn next(&mut self) -> Option<Assignments> {
        self.0.recv().await
    }
}

impl FakeManager {
    fn new() -> (Self, mpsc::UnboundedSender<Assignments>, mpsc::UnboundedReceiver<(TaskId, TaskStatus)>) {
        let (reports, reported) = mpsc::unbounded_channel();
        let (assign, assignments) = mpsc::unbounded_channel();
        (Self { assignments: Arc::new(Mutex::new(Some(assignments))), reports }, assign, reported)
    }
}

impl Link for FakeManager {
    type Session = FakeSession;
    type Error = Infallible;

    async fn connect(&self) -> Result<FakeSession, Infallible> {
        match self.assignments.lock().unwrap().take() {
            Some(assignments) => Ok(FakeSession(assignments)),
            None => Ok(FakeSession(mpsc::unbounded_channel().1)),
        }
    }

    async fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> Result<(), Infallible> {
        statuses.into_iter().for_each(|status| drop(self.reports.send(status)));
        Ok(())
    }
}

/// A running agent and what its test holds in hand.
struct Bench {
    fake: Fake,
    calls: mpsc::UnboundedReceiver<String>,
    reports: mpsc::UnboundedReceiver<(TaskId, TaskStatus)>,
    assign: mpsc::UnboundedSender<Assignments>,
    link: watch::Sender<Option<FakeManager>>,
    _agent: JoinSet<()>,
    stopping: CancellationToken,
}

impl Bench {
    async fn new(directory: &Path, fill: impl FnOnce(&mut Fake)) -> Self {
        let (call_sender, calls) = mpsc::unbounded_channel();
        let (manager, assign, reports) = FakeManager::new();
        let mut fake = Fake {
            state: Arc::default(),
            calls: call_sender,
            changes: Arc::default(),
            image_is_missing: false,
            failing_details: Arc::default(),
            is_short_lived: false,
            stop_hangs: false,
        };
        fill(&mut fake);
        let files = WorkerFiles::open(directory.join("worker")).unwrap();
        let agent = Agent::<_, FakeManager>::open(fake.clone(), files).await.unwrap();
        let (link, links) = watch::channel(None);
        link.send_replace(Some(manager));
        let stopping = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(agent.run(links, stopping.clone()));
        Self { fake, calls, reports, assign, link, _agent: running, stopping }
    }

    async fn call(&mut self) -> String {
        let call = tokio::time::timeout(Duration::from_secs(10), self.calls.recv()).await;
        call.expect("a call is due").expect("the agent runs")
    }

    async fn reported(&mut self, state: TaskState) -> TaskStatus {
        loop {
            let report = tokio::time::timeout(Duration::from_secs(10), self.reports.recv()).await;
            let (_, status) = report.expect("a report is due").expect("the agent runs");
            if status.state == state {
                return status;
            }
        }
    }

    fn complete(&self, tasks: Vec<Task>) {
        let all = tasks.into_iter().map(assignment).collect();
        self.assign.send(Assignments::Complete(all)).unwrap();
    }

    fn change(&self, task: Task) {
        let update = vec![assignment(task)];
        self.assign.send(Assignments::Incremental { update, remove: Vec::new() }).unwrap();
    }
}

fn assignment(task: Task) -> Assignment {
    Assignment { task: Arc::new(task), registry_auth: String::new() }
}

fn task(id: &str, desired: TaskState, observed: TaskState) -> Task {
    let mut task =
        Task { id: id.into(), slot: 1, service_id: "s".into(), desired_state: desired, ..Task::default() };
    task.internal.service_name = "web".to_owned();
    task.internal.ports = vec![PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() }];
    task.spec = Arc::new(TaskSpec::default());
    task.status.state = observed;
    task
}

#[tokio::test]
async fn a_task_is_made_started_published_and_then_reported_running() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    let mut calls = Vec::new();
    while calls.last().is_none_or(|call| call != "publish s 1") {
        calls.push(bench.call().await);
    }
    calls.retain(|call| call != "publish s 0");
    assert_eq!(calls, ["create t1", "start web.1.t1", "publish s 1"]);
    let status = bench.reported(TaskState::Running).await;
    assert_eq!(status.message, "started");
    assert_eq!(status.container_status.unwrap().pid, 42);
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_task_leaves_the_load_balancing_before_it_is_stopped_and_its_container_goes_last() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    while bench.calls.try_recv().is_ok() {}
    bench.change(task("t1", TaskState::Shutdown, TaskState::Running));
    assert_eq!(bench.call().await, "publish s -1");
    assert_eq!(bench.call().await, "stop web.1.t1");
    assert_eq!(bench.reported(TaskState::Shutdown).await.message, "shutdown");
    bench.complete(Vec::new());
    assert_eq!(bench.call().await, "remove web.1.t1");
    let is_kept = || std::fs::read_dir(root.path().join("worker")).unwrap().count() > 0;
    let forgotten = async {
        while is_kept() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), forgotten).await.expect("the task is forgotten");
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_container_that_ran_on_stays_and_one_that_ended_meanwhile_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |fake| {
        fake.set("web.1.t1", Status::Running, 0);
        fake.set("web.1.t2", Status::Exited, 9);
        fake.set("web.1.t3", Status::Running, 0);
    })
    .await;
    let running = |id| task(id, TaskState::Running, TaskState::Running);
    bench.complete(vec![running("t1"), running("t2")]);
    assert_eq!(bench.reported(TaskState::Failed).await.err, "task: non-zero exit (9)");
    let mut calls = Vec::new();
    while !calls.contains(&"remove web.1.t3".to_owned()) || !calls.contains(&"publish s 1".to_owned()) {
        calls.push(bench.call().await);
    }
    assert!(!calls.iter().any(|call| call.starts_with("start") || call.starts_with("stop")), "{calls:?}");
    assert_eq!(bench.fake.state.lock().unwrap()["web.1.t1"].status, Status::Running);
    bench.stopping.cancel();
}

#[tokio::test]
async fn another_manager_takes_the_place_of_one_that_failed() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    bench.link.send_replace(None);
    let (manager, assign, reports) = FakeManager::new();
    // The old one keeps its session open: it is the agent that leaves.
    let _old = (std::mem::replace(&mut bench.assign, assign), std::mem::replace(&mut bench.reports, reports));
    bench.link.send_replace(Some(manager));
    bench.complete(vec![task("t1", TaskState::Shutdown, TaskState::Running)]);
    bench.reported(TaskState::Shutdown).await;
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_missing_image_rejects_the_task_with_the_cause_of_the_failed_pull() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |fake| fake.image_is_missing = true).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    let status = bench.reported(TaskState::Rejected).await;
    assert_eq!(
        (status.err.as_str(), status.message.as_str()),
        ("No such image: x: no route to registry", "preparing")
    );
    bench.stopping.cancel();
}

#[tokio::test]
async fn an_exit_is_reported_at_once() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    bench.fake.set("web.1.t1", Status::Exited, 3);
    let status = bench.reported(TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (3)");
    assert_eq!(status.container_status.unwrap().exit_code, 3);
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_task_whose_address_is_not_known_yet_is_not_reported_running() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |fake| fake.failing_details = Arc::new(1.into())).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    let mut calls = Vec::new();
    while let Ok(call) = bench.calls.try_recv() {
        calls.push(call);
    }
    assert_eq!(calls.last().unwrap(), "publish s 1", "{calls:?}");
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_task_that_ends_while_it_is_adopted_does_not_stay_a_backend() {
    let root = tempfile::tempdir().unwrap();
    let files = WorkerFiles::open(root.path().join("worker")).unwrap();
    let kept = Arc::new(task("t1", TaskState::Running, TaskState::Running));
    files.save(&Kept { task: kept, was_unhealthy: false }).unwrap();
    let mut bench = Bench::new(root.path(), |fake| {
        fake.set("web.1.t1", Status::Running, 0);
        fake.is_short_lived = true;
    })
    .await;
    assert_eq!(bench.call().await, "publish s 1");
    assert_eq!(bench.call().await, "publish s 0");
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_task_stopped_for_its_health_failed_even_if_the_daemon_dies_meanwhile() {
    use lifecycle::health::Status::Unhealthy;
    let root = tempfile::tempdir().unwrap();
    let running = || task("t1", TaskState::Running, TaskState::Running);
    let mut dying = Bench::new(root.path(), |fake| {
        fake.set_with("web.1.t1", Status::Running, 0, Some(Unhealthy));
        fake.stop_hangs = true;
    })
    .await;
    dying.complete(vec![running()]);
    while dying.call().await != "stop web.1.t1" {}
    drop(dying);
    let mut bench = Bench::new(root.path(), |fake| fake.set("web.1.t1", Status::Exited, 0)).await;
    bench.complete(vec![running()]);
    let status = bench.reported(TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (0): dockerexec: unhealthy container");
    bench.stopping.cancel();
}
