//! The agent against a small fake of the engine and of a manager: what it does, in which order, and what it reports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::{ContainerState, Status};
use objects::{NetworkAttachment, PortConfig, PublishMode, TaskSpec, Timestamp};
use tokio::sync::mpsc;
use wire::network::NetworkView;

use super::*;

/// Containers that only exist in memory; every call is written down.
#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<BTreeMap<String, ContainerState>>>,
    calls: mpsc::UnboundedSender<String>,
    changes: Arc<Mutex<Vec<mpsc::UnboundedSender<Found>>>>,
    image_is_missing: bool,
    /// Look-ups of ports that still fail.
    failing_ports: Arc<AtomicUsize>,
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
            went_with_machine: false,
            health,
            networks: vec!["open".to_owned()],
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

    async fn pull(&self, _task: Arc<Task>, _registry_auth: Hidden) -> Result<(), String> {
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

    async fn ports(&self, _id: String, task: Arc<Task>) -> Result<Vec<PortConfig>, Failure> {
        let one_less = |count: usize| count.checked_sub(1);
        if self.failing_ports.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Failure { text: "no answer".to_owned(), is_passing: false });
        }
        let numbered = |port: &PortConfig| PortConfig { published_port: 32_768, ..port.clone() };
        Ok(task.internal.ports.iter().map(numbered).collect())
    }

    async fn networks(&self, told: Assignments) -> Result<(), Failure> {
        let networks = match &told {
            Assignments::Complete(all) => &all.networks,
            Assignments::Incremental { update, .. } => &update.networks,
        };
        if !networks.is_empty() {
            self.call(format!("networks {}", networks.len()));
        }
        Ok(())
    }
}

/// Managers that can be reached one after the other.
#[derive(Clone)]
struct FakeManagers {
    sessions: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<FakeSession>>>,
    reports: mpsc::UnboundedSender<(TaskId, TaskStatus)>,
}

struct FakeSession(mpsc::UnboundedReceiver<Assignments>);

impl Assigned for FakeSession {
    async fn next(&mut self) -> Option<Assignments> {
        self.0.recv().await
    }
}

impl Link for FakeManagers {
    type Session = FakeSession;
    type Error = Infallible;

    async fn connect(&self) -> FakeSession {
        match self.sessions.lock().await.recv().await {
            Some(session) => session,
            None => std::future::pending().await,
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
    sessions: mpsc::UnboundedSender<FakeSession>,
    _agent: JoinSet<()>,
    stopping: CancellationToken,
}

impl Bench {
    async fn new(directory: &Path, fill: impl FnOnce(&mut Fake)) -> Self {
        let (call_sender, calls) = mpsc::unbounded_channel();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (sessions, session_receiver) = mpsc::unbounded_channel();
        let managers = FakeManagers {
            sessions: Arc::new(tokio::sync::Mutex::new(session_receiver)),
            reports: report_sender,
        };
        let assign = open_session(&sessions);
        let mut fake = Fake {
            state: Arc::default(),
            calls: call_sender,
            changes: Arc::default(),
            image_is_missing: false,
            failing_ports: Arc::default(),
            stop_hangs: false,
        };
        fill(&mut fake);
        let files = WorkerFiles::open(directory.join("worker")).unwrap();
        let agent = Agent::open(fake.clone(), files, managers, Attachments::default()).await.unwrap();
        let stopping = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(agent.run(stopping.clone()));
        Self { fake, calls, reports, assign, sessions, _agent: running, stopping }
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
        self.assign.send(Assignments::Complete(assigned(tasks))).unwrap();
    }

    fn change(&self, task: Task) {
        let update = assigned(vec![task]);
        self.assign.send(Assignments::Incremental { update, remove: Removed::default() }).unwrap();
    }
}

/// A manager that can be reached from now on; what it assigns.
fn open_session(sessions: &mpsc::UnboundedSender<FakeSession>) -> mpsc::UnboundedSender<Assignments> {
    let (assign, assignments) = mpsc::unbounded_channel();
    sessions.send(FakeSession(assignments)).expect("the agent asks for it");
    assign
}

fn assigned(tasks: Vec<Task>) -> session::Assigned {
    let assignment = |task| Assignment { task: Arc::new(task), registry_auth: Hidden::default() };
    session::Assigned { tasks: tasks.into_iter().map(assignment).collect(), ..Default::default() }
}

fn task(id: &str, desired: TaskState, observed: TaskState) -> Task {
    let mut task =
        Task { id: id.into(), slot: 1, service_id: "s".into(), desired_state: desired, ..Task::default() };
    task.internal.service_name = "web".to_owned();
    task.spec = Arc::new(TaskSpec::default());
    task.status.state = observed;
    task
}

#[tokio::test]
async fn networks_are_there_before_a_task_is_made_started_and_reported_running() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    let mut all = assigned(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    all.networks = vec![NetworkView::default()];
    bench.assign.send(Assignments::Complete(all)).unwrap();
    let status = bench.reported(TaskState::Running).await;
    assert_eq!(status.message, "started");
    assert_eq!(status.container_status.unwrap().pid, 42);
    let mut calls = Vec::new();
    while let Ok(call) = bench.calls.try_recv() {
        calls.push(call);
    }
    assert_eq!(calls, ["networks 1", "create t1", "start web.1.t1"]);
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_task_that_others_know_is_stopped_when_they_had_the_time_to_turn_away() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    let known = |desired, observed| {
        let mut task = task("t1", desired, observed);
        task.networks_attachments = vec![NetworkAttachment::default()];
        task
    };
    bench.complete(vec![known(TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    while bench.calls.try_recv().is_ok() {}
    let told = Instant::now();
    bench.change(known(TaskState::Shutdown, TaskState::Running));
    assert_eq!(bench.call().await, "stop web.1.t1");
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    bench.reported(TaskState::Shutdown).await;
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_tasks_container_goes_last() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    while bench.calls.try_recv().is_ok() {}
    bench.change(task("t1", TaskState::Shutdown, TaskState::Running));
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
    while !calls.contains(&"remove web.1.t3".to_owned()) {
        calls.push(bench.call().await);
    }
    assert!(!calls.iter().any(|call| call.starts_with("start") || call.starts_with("stop")), "{calls:?}");
    assert_eq!(bench.fake.state.lock().unwrap()["web.1.t1"].status, Status::Running);
    bench.stopping.cancel();
}

#[tokio::test]
async fn another_manager_takes_the_place_of_one_that_was_lost_and_hears_the_news_at_once() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |_| {}).await;
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Assigned)]);
    bench.reported(TaskState::Running).await;
    bench.assign = open_session(&bench.sessions);
    // Nobody is told of this until there is a session again.
    bench.fake.set("web.1.t1", Status::Exited, 3);
    bench.complete(vec![task("t1", TaskState::Running, TaskState::Running)]);
    bench.reported(TaskState::Failed).await;
    assert!(bench.fake.state.lock().unwrap().contains_key("web.1.t1"));
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
async fn a_task_is_reported_running_with_the_numbers_of_its_host_ports() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(root.path(), |fake| fake.failing_ports = Arc::new(1.into())).await;
    let mut task = task("t1", TaskState::Running, TaskState::Assigned);
    task.internal.ports =
        vec![PortConfig { target_port: 80, publish_mode: PublishMode::Host, ..PortConfig::default() }];
    bench.complete(vec![task]);
    let status = bench.reported(TaskState::Running).await;
    assert_eq!(status.port_status.ports[0].published_port, 32_768);
    bench.stopping.cancel();
}

#[tokio::test]
async fn a_start_waits_for_word_before_it_makes_containers_but_not_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let files = WorkerFiles::open(root.path().join("worker")).unwrap();
    for id in ["t1", "t2"] {
        let kept = Arc::new(task(id, TaskState::Running, TaskState::Preparing));
        files.save(&Kept { task: kept, was_unhealthy: false }).unwrap();
    }
    let mut bench = Bench::new(root.path(), |_| {}).await;
    let running = task("t2", TaskState::Running, TaskState::Preparing);
    bench.complete(vec![task("t1", TaskState::Shutdown, TaskState::Preparing), running]);
    while bench.call().await != "start web.1.t2" {}
    bench.reported(TaskState::Running).await;
    assert!(!bench.fake.state.lock().unwrap().contains_key("web.1.t1"), "it runs elsewhere by now");
    bench.stopping.cancel();
    // Nobody says anything: it goes on by itself.
    let mut cut_off = Bench::new(root.path(), |_| {}).await;
    while cut_off.call().await != "start web.1.t2" {}
    cut_off.stopping.cancel();
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
