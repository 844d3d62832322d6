//! Makes this node run what it was given, and tells how that goes.
//!
//! ```text
//!  assignments ─┐                      ┌─► operations (pull, make, start, stop, remove), a bounded number at once
//!  containers ──┼─► advance one task ──┤
//!  operations ──┘   (lifecycle::task)  └─► reports, one call at a time, what came meanwhile merged
//!       └─► what is said of networks goes to the machine's network, before the tasks that use them
//! ```
//!
//! One task owns all of it. It is level-triggered: every event only says which task to look at again, what is there is
//! read when it is needed. In: events. Out: calls. It never decides what a task needs: `lifecycle::task` does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::task::{Operation, RETRY_AFTER, Step};
use objects::{PortConfig, Task, TaskId, TaskState, TaskStatus};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::Hidden;
use wire::session::{self, Assignment, Assignments, REPORTS_PER_CALL, Removed};

use crate::attachments::Attachments;
use crate::container_spec::grace_seconds;
use crate::containers::{Containers, Failure, Found, Seen, Watch};
use crate::grants::Grants;
use crate::link::{Assigned, Link};
use crate::local::{Local, Ports};
use crate::requests::now;
use crate::worker::{Kept, WorkerFiles};

/// Containers made or started at the same time, at least. chosen: one start is half waiting for the disk and the
/// kernel, so two per CPU keep both busy; more only make each of them slower.
const STARTS: usize = 4;

/// How long a start of the daemon waits for a manager's word before it makes or starts containers on its own.
/// chosen: a manager that can be reached answers within a second or two, and what this node was given before it was away
/// may run elsewhere by now; one that is cut off must go on with what it has.
const WORD_WITHIN: Duration = Duration::from_secs(4);

/// What came of something that was under way.
enum Done<L: Link> {
    Operation { task: TaskId, operation: Operation, result: Result<(), Failure> },
    Ports { task: TaskId, result: Result<Vec<PortConfig>, Failure> },
    Removed { task: Option<TaskId>, container: String, result: Result<(), Failure> },
    Reported { statuses: Vec<(TaskId, TaskStatus)>, result: Result<(), L::Error> },
    Connected(L::Session),
}

/// The agent of this node.
pub(crate) struct Agent<C: Containers, L: Link> {
    containers: C,
    files: WorkerFiles,
    tasks: BTreeMap<TaskId, Local>,
    grants: Grants,
    attachments: Attachments,
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
    /// Until when a manager's word is waited for.
    word_until: Instant,
    link: L,
    session: Option<L::Session>,
    /// Whether a manager is being looked for.
    is_connecting: bool,
    /// When to try again what failed for a passing reason.
    retry_at: Option<Instant>,
}

impl<C: Containers, L: Link> Agent<C, L> {
    /// An agent with the tasks that were kept on disk.
    pub(crate) async fn open(
        containers: C,
        files: WorkerFiles,
        link: L,
        attachments: Attachments,
    ) -> std::io::Result<Self> {
        let slots = std::thread::available_parallelism().map_or(STARTS, |cpus| STARTS.max(2 * cpus.get()));
        let mut agent = Self {
            containers,
            tasks: BTreeMap::new(),
            grants: Grants::default(),
            attachments,
            work: JoinSet::new(),
            starts: Arc::new(Semaphore::new(slots)),
            orphans: BTreeSet::new(),
            unreported: BTreeSet::new(),
            is_reporting: false,
            is_report_due: true,
            is_told: false,
            word_until: Instant::now() + WORD_WITHIN,
            link,
            session: None,
            is_connecting: false,
            retry_at: None,
            files: files.clone(),
        };
        for Kept { task, was_unhealthy } in files.load()? {
            let container = agent.containers.find(&task);
            let mut local = Local::new(task, Hidden::default(), container);
            local.was_unhealthy = was_unhealthy;
            agent.tasks.insert(local.task.id.clone(), local);
        }
        Ok(agent)
    }

    /// Runs until `stopping`; containers go on. A manager says what to run when one is there, another one in its place.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let mut changes = self.containers.watch();
        self.look_at_all();
        self.connect();
        loop {
            let retry = self.retry_at;
            tokio::select! {
                () = stopping.cancelled() => break,
                assignments = next_assignments(&mut self.session) => self.take_assignments(assignments).await,
                seen = changes.next() => match seen {
                    Some(Seen::Changed(found)) => self.see(found),
                    Some(Seen::Plain(container)) => self.look_at_attachments(Some(&container)),
                    Some(Seen::Missed) => self.look_at_all(),
                    None => break,
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "an operation of the agent ended badly"),
                },
                () = self.attachments.let_go() => self.look_at_attachments(None),
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

    fn connect(&mut self) {
        if self.session.is_none() && !self.is_connecting {
            self.is_connecting = true;
            let link = self.link.clone();
            self.work.spawn(async move { Done::Connected(link.connect().await) });
        }
    }

    async fn take_assignments(&mut self, mut assignments: Option<Assignments>) {
        if let Some(told) = assignments.as_mut().and_then(about_networks)
            && let Err(error) = self.containers.networks(told).await
        {
            // What can be had of it is there; the network's own repair goes on with the rest.
            tracing::warn!(%error, "networks of the swarm are not as they should be");
        }
        match assignments {
            None => {
                self.session = None;
                self.connect();
            }
            Some(Assignments::Complete(mut all)) => {
                self.is_told = true;
                // Whoever refused the last report is not the one to hear the next.
                self.is_report_due = true;
                self.grants.replace(&mut all);
                let wanted: BTreeSet<TaskId> =
                    all.tasks.iter().map(|assignment| assignment.task.id.clone()).collect();
                let gone: Vec<TaskId> =
                    self.tasks.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
                all.tasks.into_iter().for_each(|assignment| self.assign(assignment));
                gone.iter().for_each(|id| self.leave(id));
                self.look_at_all();
            }
            Some(Assignments::Incremental { mut update, remove }) => {
                self.grants.add(&mut update);
                update.tasks.into_iter().for_each(|assignment| self.assign(assignment));
                remove.tasks.iter().for_each(|id| self.leave(id));
                self.grants.remove(&remove);
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

    /// Looks at the tasks that stand for plain containers: for this one, or for all.
    fn look_at_attachments(&mut self, container: Option<&str>) {
        let is_meant = |local: &&Local| {
            let attachment = local.task.spec.network_attachment_spec.as_ref();
            attachment.is_some_and(|it| container.is_none_or(|container| it.container_id == container))
        };
        let ids: Vec<TaskId> =
            self.tasks.values().filter(is_meant).map(|local| local.task.id.clone()).collect();
        for id in ids {
            self.refresh(&id);
            self.advance(&id);
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
        let awaits_word = self.awaits_word();
        while let Some(local) = self.tasks.get_mut(id) {
            if local.is_leaving {
                self.advance_removal(id);
                return;
            }
            match local.next(&self.attachments) {
                Step::Wait => break,
                Step::Retry => {
                    self.retry_soon();
                    break;
                }
                Step::Cancel => {
                    local.cancel.cancel();
                    break;
                }
                Step::Begin(Operation::Prepare | Operation::Start) if awaits_word => {
                    self.retry_soon();
                    break;
                }
                Step::Begin(operation) => {
                    self.begin(id, operation);
                    break;
                }
                Step::Become { state, message, error } => local.become_state(state, message, error, now()),
            }
        }
        self.look_up_ports(id);
        if let Some(local) = self.tasks.get(id).filter(|local| local.task.is_attachment()) {
            self.attachments.note(id, Some(local.status.state.is_terminal()));
        }
        if self.tasks.get(id).is_some_and(Local::has_news) {
            self.unreported.insert(id.clone());
        }
    }

    /// Whether what is not there yet waits: it may run elsewhere by now.
    fn awaits_word(&self) -> bool {
        !self.is_told && Instant::now() < self.word_until
    }

    fn begin(&mut self, id: &TaskId, operation: Operation) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        local.operation = Some(operation);
        local.failure = None;
        let (containers, starts) = (self.containers.clone(), Arc::clone(&self.starts));
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
                let drain = local.drain();
                if is_unhealthy && local.task.desired_state <= TaskState::Running && !local.was_unhealthy {
                    local.was_unhealthy = true;
                    // Before the stop: should the daemon end meanwhile, the next one must know why the container did.
                    self.keep(id);
                }
                self.work.spawn(async move {
                    // By then nobody sends it anything new: it left names and load balancing everywhere.
                    tokio::time::sleep(drain).await;
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
        // The container of an attachment is its user's.
        let own = local.container.as_ref().filter(|_| !local.task.is_attachment());
        let Some(container) = own.map(|found| found.id.clone()) else {
            self.forget(id);
            return;
        };
        local.is_being_removed = true;
        let (containers, task) = (self.containers.clone(), local.task.id.clone());
        self.work.spawn(async move {
            let result = containers.remove(container.clone()).await;
            Done::Removed { task: Some(task), container, result }
        });
    }

    fn forget(&mut self, id: &TaskId) {
        self.tasks.remove(id);
        self.attachments.note(id, None);
        self.unreported.remove(id);
        if let Err(error) = self.files.forget(id) {
            tracing::warn!(task.id = %id, %error, "a task's file was not removed");
        }
    }

    /// Asks for the numbers of a running task's host ports, once.
    fn look_up_ports(&mut self, id: &TaskId) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        if !local.is_up() {
            local.ports = Ports::Unknown;
        } else if local.needs_ports() {
            local.ports = Ports::UnderWay;
            let containers = self.containers.clone();
            let (task, container) =
                (Arc::clone(&local.task), local.container.as_ref().map(|found| found.id.clone()));
            let container = container.unwrap_or_else(|| task.name());
            self.work.spawn(async move {
                let result = containers.ports(container, Arc::clone(&task)).await;
                Done::Ports { task: task.id.clone(), result }
            });
        }
    }

    fn done(&mut self, done: Done<L>) {
        match done {
            Done::Operation { task, operation, result } => self.operation_done(&task, operation, result),
            Done::Ports { task, result } => self.ports_known(&task, result),
            Done::Removed { task, container, result } => self.removed(task, &container, result),
            Done::Reported { statuses, result } => self.reported(statuses, result),
            Done::Connected(session) => {
                self.is_connecting = false;
                self.session = Some(session);
            }
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

    fn ports_known(&mut self, id: &TaskId, result: Result<Vec<PortConfig>, Failure>) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        match result {
            Ok(ports) if local.is_up() => {
                local.ports = Ports::Known(ports);
                local.note_container();
                self.advance(id);
            }
            Ok(_) => local.ports = Ports::Unknown,
            Err(error) => {
                tracing::warn!(task.id = %id, error = %error, "no ports of a task");
                local.ports = Ports::Unknown;
                self.retry_soon();
            }
        }
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

    /// Reports what is new, unless a report is under way: what comes meanwhile goes with the next one.
    fn report(&mut self) {
        let may_report = self.session.is_some() && self.is_told && self.is_report_due && !self.is_reporting;
        if !may_report {
            return;
        }
        let mut statuses = Vec::new();
        while statuses.len() < REPORTS_PER_CALL
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
        let link = self.link.clone();
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
        self.look_at_all();
    }
}

async fn prepare<C: Containers>(
    containers: C,
    task: Arc<Task>,
    registry_auth: Hidden,
    starts: Arc<Semaphore>,
) -> Result<(), Failure> {
    // Without a slot: a registry that does not answer must not keep other images from being started.
    let pulled = containers.pull(Arc::clone(&task), registry_auth).await;
    let _slot = starts.acquire().await;
    containers.prepare(task, pulled).await
}

/// Takes out what a manager said of networks; `None` when it said nothing.
fn about_networks(told: &mut Assignments) -> Option<Assignments> {
    let of = |assigned: &mut session::Assigned| session::Assigned {
        networks: std::mem::take(&mut assigned.networks),
        network_news: std::mem::take(&mut assigned.network_news),
        ..session::Assigned::default()
    };
    match told {
        // That there are none is something that is said.
        Assignments::Complete(all) => Some(Assignments::Complete(of(all))),
        Assignments::Incremental { update, remove } => {
            let update = of(update);
            let remove = Removed { networks: std::mem::take(&mut remove.networks), ..Removed::default() };
            let is_said = update != session::Assigned::default() || remove != Removed::default();
            is_said.then_some(Assignments::Incremental { update, remove })
        }
    }
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

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
