//! Makes this node run what it was given, and tells how that goes.
//!
//! ```text
//!  assignments ─┐                      ┌─► operations (pull, make, start, stop, remove), a bounded number at once
//!  containers ──┼─► advance one task ──┼─► published ports
//!  operations ──┘   (lifecycle::task)  └─► reports, one call at a time, what came meanwhile merged
//! ```
//!
//! One task owns all of it. It is level-triggered: every event only says which task to look at again, what is there is
//! read when it is needed. In: events. Out: calls. It never decides what a task needs: `lifecycle::task` does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifecycle::task::{Operation, RETRY_AFTER, Step};
use manager::{Assignment, Assignments};
use objects::{ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::container_spec::grace_seconds;
use crate::containers::{Containers, Details, Failure, Found, Seen, Watch};
use crate::link::{Assigned, Link};
use crate::local::{Local, Serving};
use crate::publish::Publisher;
use crate::worker::{Kept, WorkerFiles};

/// Containers made or started at the same time, at least. chosen: one start is half waiting for the disk and the
/// kernel, so two per CPU keep both busy; more only make each of them slower.
const STARTS: usize = 4;

/// Longest wait before a manager is asked again. Source: reference 5 (8 s).
const RECONNECT_AFTER: Duration = Duration::from_secs(8);

/// Reports in one call. Source: reference 5 (1024 per call).
const REPORTS: usize = 1024;

/// What came of something that was under way.
enum Done<L: Link> {
    Operation { task: TaskId, operation: Operation, result: Result<(), Failure> },
    Details { task: TaskId, result: Result<Details, Failure> },
    Served { task: Option<TaskId>, service: ServiceId, result: Result<(), Failure> },
    Removed { task: Option<TaskId>, container: String, result: Result<(), Failure> },
    Reported { statuses: Vec<(TaskId, TaskStatus)>, result: Result<(), L::Error> },
    Connected(Result<L::Session, L::Error>),
}

/// The agent of this node.
pub(crate) struct Agent<C: Containers, L: Link> {
    containers: C,
    publisher: Publisher<C>,
    files: WorkerFiles,
    tasks: BTreeMap<TaskId, Local>,
    work: JoinSet<Done<L>>,
    starts: Arc<Semaphore>,
    /// Containers of tasks nobody knows any more that are being removed.
    orphans: BTreeSet<String>,
    unreported: BTreeSet<TaskId>,
    is_reporting: bool,
    /// False after a failed report, until the next retry.
    is_report_due: bool,
    /// Whether a manager said what this node should run.
    is_told: bool,
    link: Option<L>,
    session: Option<L::Session>,
    reconnect_after: Duration,
    is_connecting: bool,
    /// When to try again what failed for a passing reason.
    retry_at: Option<Instant>,
}

impl<C: Containers, L: Link> Agent<C, L> {
    /// An agent with the tasks that were kept on disk; their ports are published when this returns.
    pub(crate) async fn open(containers: C, files: WorkerFiles) -> std::io::Result<Self> {
        let slots = std::thread::available_parallelism().map_or(STARTS, |cpus| STARTS.max(2 * cpus.get()));
        let mut agent = Self {
            publisher: Publisher::new(containers.clone()),
            containers,
            tasks: BTreeMap::new(),
            work: JoinSet::new(),
            starts: Arc::new(Semaphore::new(slots)),
            orphans: BTreeSet::new(),
            unreported: BTreeSet::new(),
            is_reporting: false,
            is_report_due: true,
            is_told: false,
            link: None,
            session: None,
            reconnect_after: Duration::ZERO,
            is_connecting: false,
            retry_at: None,
            files: files.clone(),
        };
        for Kept { task, was_unhealthy } in files.load()? {
            let container = agent.containers.find(&task);
            agent.publisher.add(&task);
            let mut local = Local::new(task, String::new(), container);
            local.was_unhealthy = was_unhealthy;
            agent.adopt_address(&mut local).await;
            agent.tasks.insert(local.task.id.clone(), local);
        }
        for service in agent.publisher.services() {
            if let Err(error) = agent.publisher.bring(&service).await {
                tracing::warn!(service.id = %service, error = %error, "ports not published");
                agent.retry_soon();
            }
        }
        Ok(agent)
    }

    /// A task that ran before the daemon restarted goes on serving where it did.
    async fn adopt_address(&self, local: &mut Local) {
        let Some(container) = local.container.clone().filter(|_| local.is_up()) else { return };
        let task = Arc::clone(&local.task);
        let is_wanted = task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running;
        let is_healthy = container.health.is_none_or(|health| health == lifecycle::health::Status::Healthy);
        if is_wanted && is_healthy {
            match self.containers.details(container.id.clone(), Arc::clone(&task)).await {
                Ok(details) => {
                    self.publisher.serve(&task, details.address);
                    local.ports = details.ports;
                    local.note_container();
                    // From now on: what it serves is taken back when it ends.
                    local.serving = Serving::Yes;
                }
                Err(error) => tracing::warn!(task.id = %task.id, error = %error, "no address of a task"),
            }
        }
    }

    /// Runs until `stopping`; containers go on. The manager comes when it is there, and another one in its place.
    pub(crate) async fn run(mut self, mut links: watch::Receiver<Option<L>>, stopping: CancellationToken) {
        let mut changes = self.containers.watch();
        let mut may_link_change = true;
        self.look_at_all();
        loop {
            let retry = self.retry_at;
            tokio::select! {
                () = stopping.cancelled() => break,
                changed = links.changed(), if may_link_change => match changed {
                    Ok(()) => self.relink(links.borrow_and_update().clone()),
                    Err(_) => may_link_change = false,
                },
                assignments = next_assignments(&mut self.session) => self.take_assignments(assignments),
                seen = changes.next() => match seen {
                    Some(Seen::Changed(found)) => self.see(found),
                    Some(Seen::Missed) => self.look_at_all(),
                    None => break,
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "an operation of the agent ended badly"),
                },
                () = sleep_until(retry) => self.retry(),
            }
            self.report();
        }
        self.finish().await;
    }

    /// Lets go of what is under way: what the engine has begun it finishes by itself, and the next agent looks at what
    /// is there. No container appears after this.
    async fn finish(mut self) {
        self.session = None;
        self.work.shutdown().await;
        self.containers.settle().await;
    }

    /// Turns to another manager, or to none for the time being. A session with the old one ends by itself.
    fn relink(&mut self, link: Option<L>) {
        self.link = link;
        self.session = None;
        self.reconnect_after = Duration::ZERO;
        self.connect();
    }

    fn connect(&mut self) {
        let Some(link) = self.link.clone() else { return };
        if self.session.is_none() && !self.is_connecting {
            self.is_connecting = true;
            let wait = self.reconnect_after;
            self.work.spawn(async move {
                tokio::time::sleep(wait).await;
                Done::Connected(link.connect().await)
            });
        }
    }

    fn take_assignments(&mut self, assignments: Option<Assignments>) {
        match assignments {
            None => {
                self.session = None;
                self.reconnect_after =
                    (self.reconnect_after * 2).clamp(Duration::from_millis(100), RECONNECT_AFTER);
                self.connect();
            }
            Some(Assignments::Complete(all)) => {
                self.is_told = true;
                let wanted: BTreeSet<TaskId> =
                    all.iter().map(|assignment| assignment.task.id.clone()).collect();
                let gone: Vec<TaskId> =
                    self.tasks.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
                all.into_iter().for_each(|assignment| self.assign(assignment));
                gone.iter().for_each(|id| self.leave(id));
                self.look_at_all();
            }
            Some(Assignments::Incremental { update, remove }) => {
                update.into_iter().for_each(|assignment| self.assign(assignment));
                remove.iter().for_each(|id| self.leave(id));
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let Assignment { task, registry_auth } = assignment;
        let id = task.id.clone();
        let is_news = match self.tasks.get_mut(&id) {
            Some(local) => local.take(Arc::clone(&task), registry_auth),
            None => {
                let container = self.containers.find(&task);
                self.tasks.insert(id.clone(), Local::new(Arc::clone(&task), registry_auth, container));
                true
            }
        };
        if is_news {
            self.keep(&id);
            self.publisher.add(&task);
            self.bring(&task.service_id);
        }
        self.advance(&id);
    }

    fn keep(&self, id: &TaskId) {
        let Some(local) = self.tasks.get(id) else { return };
        // The manager has the task too: a full disk only costs what a start without a manager would know.
        if let Err(error) = self.files.save(&local.kept()) {
            tracing::warn!(task.id = %id, %error, "task not kept on disk");
        }
    }

    fn leave(&mut self, id: &TaskId) {
        if let Some(local) = self.tasks.get_mut(id) {
            local.is_leaving = true;
            self.advance(id);
        }
    }

    fn see(&mut self, found: Found) {
        if self.tasks.contains_key(&found.task) {
            self.refresh(&found.task);
            self.advance(&found.task);
        } else if self.is_told {
            self.remove_orphan(&found);
        }
    }

    fn look_at_all(&mut self) {
        for found in self.containers.all() {
            if !self.tasks.contains_key(&found.task) && self.is_told {
                self.remove_orphan(&found);
            }
        }
        let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in ids {
            self.refresh(&id);
            self.advance(&id);
        }
    }

    /// Reads the container as it is now: an event only says that there is something to read.
    fn refresh(&mut self, id: &TaskId) {
        if let Some(local) = self.tasks.get_mut(id) {
            local.container = self.containers.find(&local.task);
        }
    }

    fn remove_orphan(&mut self, found: &Found) {
        let container = found.state.id.clone();
        let is_gone = matches!(found.state.status, engine::Status::Removing | engine::Status::Removed);
        if !is_gone && self.orphans.insert(container.clone()) {
            tracing::info!(container.id = container, task.id = %found.task, "removing the container of a task that is gone");
            let containers = self.containers.clone();
            self.work.spawn(async move {
                let result = containers.remove(container.clone()).await;
                Done::Removed { task: None, container, result }
            });
        }
    }

    /// Goes as far with a task as it goes without waiting.
    fn advance(&mut self, id: &TaskId) {
        while let Some(local) = self.tasks.get_mut(id) {
            if local.is_leaving {
                self.advance_removal(id);
                return;
            }
            match local.next() {
                Step::Wait => break,
                Step::Retry => {
                    self.retry_soon();
                    break;
                }
                Step::Cancel => {
                    local.cancel.cancel();
                    break;
                }
                Step::Begin(operation) => {
                    self.begin(id, operation);
                    break;
                }
                Step::Become { state, message, error } => local.become_state(state, message, error, now()),
            }
        }
        self.update_serving(id);
        if self.tasks.get(id).is_some_and(Local::has_news) {
            self.unreported.insert(id.clone());
        }
    }

    fn begin(&mut self, id: &TaskId, operation: Operation) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        local.operation = Some(operation);
        local.failure = None;
        let (containers, publisher, starts) =
            (self.containers.clone(), self.publisher.clone(), Arc::clone(&self.starts));
        let (task, container) =
            (Arc::clone(&local.task), local.container.as_ref().map(|found| found.id.clone()));
        let container = container.unwrap_or_else(|| task.name());
        match operation {
            Operation::Prepare => {
                local.cancel = CancellationToken::new();
                let (cancel, auth) = (local.cancel.clone(), local.registry_auth.clone());
                let work = prepare(containers, Arc::clone(&task), auth, starts);
                self.work.spawn(async move {
                    let result = cancel.run_until_cancelled(work).await.unwrap_or_else(cancelled);
                    Done::Operation { task: task.id.clone(), operation, result }
                });
            }
            Operation::Start => {
                let task = task.id.clone();
                self.work.spawn(async move {
                    let _slot = starts.acquire().await;
                    let result = containers.start(container).await;
                    Done::Operation { task, operation, result }
                });
            }
            Operation::Stop => {
                let is_unhealthy = local
                    .container
                    .as_ref()
                    .is_some_and(|found| found.health == Some(lifecycle::health::Status::Unhealthy));
                local.serving = Serving::No;
                // Out of the load balancing first, so that the last requests find somebody.
                publisher.serve(&task, None);
                if is_unhealthy && local.task.desired_state <= TaskState::Running && !local.was_unhealthy {
                    local.was_unhealthy = true;
                    // Before the stop: should the daemon end meanwhile, the next one must know why the container did.
                    self.keep(id);
                }
                self.work.spawn(async move {
                    if let Err(error) = publisher.bring(&task.service_id).await {
                        tracing::warn!(service.id = %task.service_id, error = %error, "ports not published");
                    }
                    let result = containers.stop(container, grace_seconds(&task)).await;
                    Done::Operation { task: task.id.clone(), operation, result }
                });
            }
        }
    }

    /// Takes the container of a task that left away, then the task itself.
    fn advance_removal(&mut self, id: &TaskId) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        if local.operation.is_some() {
            // Stopping and starting end by themselves.
            local.cancel.cancel();
            return;
        }
        if local.is_being_removed {
            return;
        }
        self.publisher.serve(&local.task, None);
        let Some(container) = local.container.as_ref().map(|found| found.id.clone()) else {
            self.forget(id);
            return;
        };
        local.is_being_removed = true;
        let (containers, publisher, task) =
            (self.containers.clone(), self.publisher.clone(), Arc::clone(&local.task));
        self.work.spawn(async move {
            if let Err(error) = publisher.bring(&task.service_id).await {
                tracing::warn!(service.id = %task.service_id, error = %error, "ports not published");
            }
            let result = containers.remove(container.clone()).await;
            Done::Removed { task: Some(task.id.clone()), container, result }
        });
    }

    fn forget(&mut self, id: &TaskId) {
        let Some(local) = self.tasks.remove(id) else { return };
        self.unreported.remove(id);
        self.publisher.remove(&local.task);
        self.bring(&local.task.service_id);
        if let Err(error) = self.files.forget(id) {
            tracing::warn!(task.id = %id, %error, "a task's file was not removed");
        }
    }

    /// Begins or ends to serve, by what the task is now.
    fn update_serving(&mut self, id: &TaskId) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        if local.should_begin_to_serve() {
            if local.task.internal.ports.is_empty() {
                local.serving = Serving::Yes;
                return;
            }
            local.serving = Serving::UnderWay;
            let containers = self.containers.clone();
            let (task, container) =
                (Arc::clone(&local.task), local.container.as_ref().map(|found| found.id.clone()));
            let container = container.unwrap_or_else(|| task.name());
            self.work.spawn(async move {
                let result = containers.details(container, Arc::clone(&task)).await;
                Done::Details { task: task.id.clone(), result }
            });
        } else if local.serving != Serving::No && (!local.is_up() || local.status.state > TaskState::Running)
        {
            local.serving = Serving::No;
            let task = Arc::clone(&local.task);
            self.publisher.serve(&task, None);
            self.bring(&task.service_id);
        }
    }

    /// Brings the published ports of a service to what is wanted, if they are not.
    fn bring(&mut self, service: &ServiceId) {
        if self.publisher.is_behind(service) {
            self.spawn_bring(None, service.clone());
        }
    }

    fn spawn_bring(&mut self, task: Option<TaskId>, service: ServiceId) {
        let publisher = self.publisher.clone();
        self.work.spawn(async move {
            let result = publisher.bring(&service).await;
            Done::Served { task, service, result }
        });
    }

    fn done(&mut self, done: Done<L>) {
        match done {
            Done::Operation { task, operation, result } => self.operation_done(&task, operation, result),
            Done::Details { task, result } => self.details_known(&task, result),
            Done::Served { task, service, result } => {
                if let Err(error) = result {
                    tracing::warn!(service.id = %service, error = %error, "ports not published");
                    self.retry_soon();
                }
                if let Some(id) = task {
                    if let Some(local) = self.tasks.get_mut(&id)
                        && local.serving == Serving::UnderWay
                    {
                        local.serving = Serving::Yes;
                    }
                    self.advance(&id);
                }
            }
            Done::Removed { task, container, result } => self.removed(task, &container, result),
            Done::Reported { statuses, result } => self.reported(statuses, result),
            Done::Connected(result) => self.connected(result),
        }
    }

    fn operation_done(&mut self, id: &TaskId, operation: Operation, result: Result<(), Failure>) {
        self.refresh(id);
        let Some(local) = self.tasks.get_mut(id) else { return };
        local.operation = None;
        local.failure = result.err();
        match &local.failure {
            // Given up or put off, as when the daemon stops: nothing is wrong.
            Some(failure) if failure.is_passing => {
                tracing::info!(task.id = %id, ?operation, cause = %failure, "operation put off");
            }
            Some(failure) => tracing::warn!(task.id = %id, ?operation, error = %failure, "operation failed"),
            None => {}
        }
        self.advance(id);
    }

    fn details_known(&mut self, id: &TaskId, result: Result<Details, Failure>) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        let details = match result {
            Ok(details) => details,
            Err(error) => {
                tracing::warn!(task.id = %id, error = %error, "no address of a task");
                local.serving = Serving::No;
                self.retry_soon();
                return;
            }
        };
        local.ports = details.ports;
        local.note_container();
        if local.serving != Serving::UnderWay || !local.is_up() {
            local.serving = Serving::No;
            return;
        }
        let task = Arc::clone(&local.task);
        self.publisher.serve(&task, details.address);
        self.spawn_bring(Some(id.clone()), task.service_id.clone());
    }

    fn removed(&mut self, task: Option<TaskId>, container: &str, result: Result<(), Failure>) {
        self.orphans.remove(container);
        if let Err(failure) = result {
            if failure.is_passing {
                tracing::info!(container.id = container, cause = %failure, "removal put off");
            } else {
                tracing::warn!(container.id = container, error = %failure, "container not removed");
            }
            self.retry_soon();
        }
        if let Some(id) = task {
            self.refresh(&id);
            let Some(local) = self.tasks.get_mut(&id) else { return };
            local.is_being_removed = false;
            // With the container still there, the next retry goes on.
            if local.container.is_none() {
                self.advance(&id);
            }
        }
    }

    fn connected(&mut self, result: Result<L::Session, L::Error>) {
        self.is_connecting = false;
        match result {
            Ok(session) => {
                self.session = Some(session);
                self.reconnect_after = Duration::ZERO;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no session with a manager");
                self.reconnect_after =
                    (self.reconnect_after * 2).clamp(Duration::from_millis(100), RECONNECT_AFTER);
                self.connect();
            }
        }
    }

    /// Reports what is new, unless a report is under way: what comes meanwhile goes with the next one.
    fn report(&mut self) {
        let Some(link) =
            self.link.clone().filter(|_| self.is_told && self.is_report_due && !self.is_reporting)
        else {
            return;
        };
        let mut statuses = Vec::new();
        while statuses.len() < REPORTS
            && let Some(id) = self.unreported.pop_first()
        {
            if let Some(local) = self.tasks.get(&id).filter(|local| local.has_news()) {
                statuses.push((id, local.status.clone()));
            }
        }
        if statuses.is_empty() {
            return;
        }
        self.is_reporting = true;
        self.work.spawn(async move {
            let result = link.report(statuses.clone()).await;
            Done::Reported { statuses, result }
        });
    }

    fn reported(&mut self, statuses: Vec<(TaskId, TaskStatus)>, result: Result<(), L::Error>) {
        self.is_reporting = false;
        if let Err(error) = result {
            tracing::warn!(error = &error as &dyn std::error::Error, "task states not reported");
            self.unreported.extend(statuses.into_iter().map(|(id, _)| id));
            self.retry_soon();
            // Not before the retry: a manager that refuses is not helped by being asked at once.
            self.is_report_due = false;
            return;
        }
        for (id, status) in statuses {
            if let Some(local) = self.tasks.get_mut(&id) {
                local.reported = local.reported.max(status.state);
            }
        }
    }

    fn retry_soon(&mut self) {
        self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_AFTER.to_std());
    }

    fn retry(&mut self) {
        self.retry_at = None;
        self.is_report_due = true;
        for local in self.tasks.values_mut().filter(|local| local.operation.is_none()) {
            local.failure = None;
        }
        for service in self.publisher.services() {
            self.bring(&service);
        }
        self.look_at_all();
    }
}

async fn prepare<C: Containers>(
    containers: C,
    task: Arc<Task>,
    registry_auth: String,
    starts: Arc<Semaphore>,
) -> Result<(), Failure> {
    // Without a slot: a registry that does not answer must not keep other images from being started.
    let pulled = containers.pull(Arc::clone(&task), registry_auth).await;
    let _slot = starts.acquire().await;
    containers.prepare(task, pulled).await
}

fn cancelled() -> Result<(), Failure> {
    Err(Failure { text: "given up: the task is not wanted any more".to_owned(), is_passing: true })
}

async fn next_assignments<S: Assigned>(session: &mut Option<S>) -> Option<Assignments> {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
