//! Keeps a session with a manager: finds one, takes what it tells, and changes over when this node has something new to
//! say of itself.
//!
//! ```text
//!  known managers ─► in order, one after the other ─► session ─► assignments ─► agent
//!  the manager on this node, first of all ──────────┘    └─ the rest (whom to know, what to trust) ─► ties
//! ```
//!
//! In: what members share, the agent's wish for a session. Out: assignments. A session that breaks is replaced by the
//! agent asking again; a manager that failed is tried last. Never decides which tasks run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manager::{ManagerError, Origin};
use objects::{NodeDescription, TaskId, TaskStatus};
use rpc::{CallError, ServerOptions, Subscription};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::attach::{Attach, AttachRequest, Attached};
use wire::session::{
    Assignments, Bye, Changed, Hello, OpenRequest, Report, ReportRequest, SessionId, SessionMessage,
};
use wire::{Code, Refusal};

use crate::known_managers::random;
use crate::link::{Assigned, Link};
use crate::own_networks;
use crate::pace::Pace;
use crate::requests;
use crate::ties::{OpenSession, Ties, With};

/// How long a manager may take to accept a session. chosen: a machine that is gone answers nothing at all, and others
/// wait to be tried.
const ACCEPT_LIMIT: Duration = Duration::from_secs(2);

/// How long an accepted session may take to begin, and a report to be answered. Source: reference 5 (5 s): while there
/// is no leader, both wait for one.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a manager may take to give a container a place on a network. chosen: longer than it waits itself.
const PLACE_LIMIT: Duration = Duration::from_secs(15);

/// Wait before the same manager is asked again for a session that replaces the present one. chosen: nothing depends on
/// it but what `node inspect` shows.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Why nothing was reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// Between two sessions.
    #[error("there is no session with a manager")]
    NoSession,
    /// The manager on this node refused.
    #[error(transparent)]
    Own(#[from] ManagerError),
    /// Another manager refused, or was not reached.
    #[error(transparent)]
    Remote(#[from] CallError),
}

/// Why a manager did not do what this node asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailed {
    /// Between two sessions, for longer than somebody waits.
    #[error("this node has no session with a manager of the swarm")]
    NoSession,
    /// The manager on this node refused.
    #[error(transparent)]
    Own(#[from] ManagerError),
    /// Another manager refused, or was not reached.
    #[error(transparent)]
    Remote(#[from] CallError),
}

impl CallFailed {
    /// The class of a refusal; `None` when no manager was reached.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Own(error) => Some(error.code()),
            Self::Remote(CallError::Refused(refusal)) => Some(refusal.code),
            Self::NoSession | Self::Remote(_) => None,
        }
    }

    /// Its text without the class.
    pub(crate) fn bare(&self) -> String {
        match self {
            Self::Own(error) => error.for_node().message,
            Self::Remote(CallError::Refused(refusal)) => refusal.message.clone(),
            other => other.to_string(),
        }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// None is known, or none runs here yet.
    #[error("no manager is known")]
    NoManager,
    /// The manager on this node refused.
    #[error(transparent)]
    Own(#[from] ManagerError),
    /// Another manager refused, or was not reached.
    #[error(transparent)]
    Remote(#[from] CallError),
    /// It accepted and then said nothing.
    #[error("the manager did not begin the session within {} s", ANSWER_LIMIT.as_secs())]
    Silent,
    /// It ended at once.
    #[error("the manager ended the session: {reason}")]
    Ended {
        /// In its words.
        reason: String,
    },
    /// The swarm has removed this node.
    #[error("{}", ServerOptions::REMOVED)]
    Removed,
}

/// Sessions of this node, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    ties: Ties,
    tries: Arc<Mutex<Tries>>,
}

#[derive(Default)]
struct Tries {
    pace: Pace,
    opened: Option<Instant>,
    /// The session of before.
    last: Option<SessionId>,
}

/// An open session.
pub(crate) struct NodeSession {
    ties: Ties,
    source: Source,
    broken: CancellationToken,
    description: watch::Receiver<NodeDescription>,
    /// Opens the session that is to replace this one.
    next: JoinSet<Opened>,
    /// Why and since when its stream is over.
    over: Option<(String, Instant)>,
}

/// Where the messages of a session come from.
enum Source {
    Own(Box<manager::Session>),
    Remote(Box<Subscription<SessionMessage>>),
}

/// A session that has begun.
struct Opened {
    source: Source,
    with: With,
    hello: Hello,
}

impl Dispatcher {
    pub(crate) fn new(ties: Ties) -> Self {
        Self { ties, tries: Arc::default() }
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before the next try.
    fn wait(&self) -> Duration {
        let mut tries = self.tries();
        if let Some(opened) = tries.opened.take() {
            tries.pace.ended(opened.elapsed());
        }
        tries.pace.wait(random())
    }

    /// Tries every manager once.
    async fn open_any(&self) -> Result<Opened, OpenError> {
        let own = self.ties.own.borrow().clone();
        let last = self.tries().last.clone();
        let mut failed = OpenError::NoManager;
        if let Some(manager) = own {
            match open(&self.ties, &With::Own(manager), last.clone()).await {
                Ok(opened) => return Ok(opened),
                Err(error) => failed = error,
            }
        }
        for address in self.ties.managers.in_order(random) {
            if self.ties.managers.is_at(&address, &self.ties.node) {
                continue;
            }
            match open(&self.ties, &With::Remote(address.clone()), last.clone()).await {
                Ok(opened) => {
                    self.ties.managers.note_success(&address);
                    return Ok(opened);
                }
                Err(OpenError::Removed) => return Err(OpenError::Removed),
                Err(error) => {
                    self.ties.managers.note_failure(&address);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Asks a manager for a container's place on a network.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<Attached, CallFailed> {
        let mut sessions = self.ties.session.subscribe();
        // The sender lives in `ties`.
        let open =
            async { sessions.wait_for(Option::is_some).await.ok().and_then(|session| session.clone()) };
        let session = tokio::time::timeout(ANSWER_LIMIT, open).await.unwrap_or_default();
        match session.ok_or(CallFailed::NoSession)?.with {
            With::Own(manager) => Ok(Box::pin(manager.attach_container(&self.ties.node, request)).await?),
            With::Remote(address) => {
                Ok(self.ties.client.call::<Attach>(&address, &request, PLACE_LIMIT).await?)
            }
        }
    }

    fn begin(&self, opened: Opened) -> NodeSession {
        {
            let mut tries = self.tries();
            (tries.opened, tries.last) = (Some(Instant::now()), Some(opened.hello.session.clone()));
        }
        let description = self.ties.description.subscribe();
        let mut session = NodeSession {
            ties: self.ties.clone(),
            source: opened.source,
            broken: CancellationToken::new(),
            description,
            next: JoinSet::new(),
            over: None,
        };
        session.begin(opened.with, opened.hello);
        session
    }
}

impl Link for Dispatcher {
    type Session = NodeSession;
    type Error = ReportError;

    async fn connect(&self) -> NodeSession {
        let mut own = self.ties.own.subscribe();
        loop {
            own.mark_unchanged();
            let wait = self.wait();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // A manager that came up here is asked at once. The sender lives as long as `self`.
                _ = own.changed() => {}
            }
            match self.open_any().await {
                Ok(opened) => {
                    self.ties.trouble.send_replace(String::new());
                    return self.begin(opened);
                }
                Err(error) => {
                    self.tries().pace.failed();
                    if matches!(error, OpenError::Removed) {
                        self.ties.removed.cancel();
                    }
                    tracing::warn!(error = &error as &dyn std::error::Error, "no session with a manager");
                    self.ties.trouble.send_replace(requests::chain(&error));
                }
            }
        }
    }

    async fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> Result<(), ReportError> {
        let session = self.ties.session.borrow().clone().ok_or(ReportError::NoSession)?;
        let result = match &session.with {
            With::Own(manager) => Ok(Box::pin(manager.report(&self.ties.node, statuses)).await?),
            With::Remote(address) => {
                let request = ReportRequest { session: session.id.clone(), statuses };
                self.ties.client.call::<Report>(address, &request, ANSWER_LIMIT).await
            }
            .map(drop)
            .map_err(ReportError::from),
        };
        if let Err(ReportError::Remote(CallError::Refused(refusal))) = &result
            && matches!(refusal.code, Code::InvalidArgument | Code::NotFound)
        {
            // It lost the session, or the node: only another session can tell.
            session.broken.cancel();
        }
        result
    }
}

/// Opens a session with one manager and waits for its first message.
async fn open(ties: &Ties, with: &With, resumes: Option<SessionId>) -> Result<Opened, OpenError> {
    let request = OpenRequest {
        description: ties.description.borrow().clone(),
        address: ties.address.clone(),
        data_path_address: ties.data_path_address.clone(),
        now: requests::now(),
        own_networks: own_networks::of_this_machine(),
        encryption_generation: *ties.encryption_generation.borrow(),
        resumes,
    };
    let mut source = match with {
        With::Own(manager) => {
            let opening = manager.open_session(&ties.node, request, Origin::Here);
            let opened = tokio::time::timeout(ANSWER_LIMIT, Box::pin(opening)).await;
            Source::Own(Box::new(opened.map_err(|_| OpenError::Silent)??))
        }
        With::Remote(address) => {
            let opened =
                ties.client.stream::<wire::session::OpenSession>(address, &request, ACCEPT_LIMIT).await;
            Source::Remote(Box::new(opened.map_err(of_call)?))
        }
    };
    let first = tokio::time::timeout(ANSWER_LIMIT, source.next()).await.map_err(|_| OpenError::Silent)?;
    match first {
        Some(Ok(SessionMessage::Hello(hello))) => Ok(Opened { source, with: with.clone(), hello: *hello }),
        Some(Ok(SessionMessage::Bye(Bye { is_removed: true, .. }))) => Err(OpenError::Removed),
        Some(Ok(SessionMessage::Bye(Bye { reason, .. }))) => Err(OpenError::Ended { reason }),
        Some(Ok(_)) => Err(OpenError::Ended { reason: "it began without a greeting".to_owned() }),
        Some(Err(error)) => Err(of_call(error)),
        None => Err(OpenError::Ended { reason: "it closed the stream".to_owned() }),
    }
}

fn of_call(error: CallError) -> OpenError {
    if let CallError::Refused(refusal) = &error
        && is_removal(refusal)
    {
        return OpenError::Removed;
    }
    OpenError::Remote(error)
}

/// Whether a manager says that this node is not one of the swarm any more.
pub(crate) fn is_removal(refusal: &Refusal) -> bool {
    refusal.code == Code::PermissionDenied && refusal.message.ends_with(ServerOptions::REMOVED)
}

impl Source {
    /// The next message. Cancel safe.
    async fn next(&mut self) -> Option<Result<SessionMessage, CallError>> {
        match self {
            Self::Own(session) => session.next().await.map(Ok),
            Self::Remote(stream) => stream.next().await,
        }
    }
}

impl NodeSession {
    /// Makes a session that has begun the one of this node.
    fn begin(&mut self, with: With, hello: Hello) {
        self.broken = CancellationToken::new();
        self.ties.session.send_replace(Some(OpenSession {
            with,
            id: hello.session,
            heartbeat: hello.heartbeat,
            broken: self.broken.clone(),
        }));
        self.learn(Changed {
            node: Some(hello.node),
            managers: Some(hello.managers),
            root: Some(hello.root),
            network_keys: Some(hello.network_keys),
            ..Changed::default()
        });
    }

    /// Takes what a manager tells besides assignments.
    fn learn(&self, changed: Changed) {
        if let Some(managers) = &changed.managers {
            self.ties.managers.replace(managers);
        }
        if let Some(root) = &changed.root
            && let Err(error) = self.ties.credentials.trust(root)
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the swarm's new root is not trusted");
        }
        if let Some(heartbeat) = changed.heartbeat {
            self.ties.session.send_modify(|session| {
                if let Some(session) = session {
                    session.heartbeat = heartbeat;
                }
            });
        }
        // A manager that says nothing of keys takes none away.
        if let Some(keys) = changed.network_keys.filter(|keys| !keys.is_empty()) {
            self.ties.network_keys.send_if_modified(|known| {
                let is_news = *known != keys;
                *known = keys;
                is_news
            });
        }
        let is_due = changed.node.is_some_and(|node| {
            node.internal.must_renew || node.internal.certified_role != self.ties.credentials.role()
        });
        if changed.renew || is_due {
            self.ties.renew.notify_one();
        }
    }

    /// Begins to replace this session by one that has the newest description.
    fn reopen(&mut self) {
        let Some(session) = self.ties.session.borrow().clone() else { return };
        let ties = self.ties.clone();
        self.next.abort_all();
        self.next.spawn(async move {
            loop {
                match open(&ties, &session.with, Some(session.id.clone())).await {
                    Ok(opened) => return opened,
                    Err(error) => tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the manager does not take this node's new description yet"
                    ),
                }
                tokio::time::sleep(REOPEN_AFTER).await;
            }
        });
    }

    fn change_over(&mut self, opened: Opened) {
        self.next.abort_all();
        self.over = None;
        self.source = opened.source;
        self.begin(opened.with, opened.hello);
    }

    /// The stream is over: the session too, unless another one is about to replace it.
    fn over(&mut self, why: String) {
        self.over = Some((why, Instant::now()));
    }

    /// Waits for what replaces a stream that is over; why the session is, when nothing does. Cancel safe.
    async fn outlive(&mut self) -> Result<(), String> {
        let Some((why, since)) = self.over.clone() else { return Ok(()) };
        if self.next.is_empty() {
            return Err(why);
        }
        let replaced = tokio::time::timeout_at(since + ANSWER_LIMIT, replacement(&mut self.next)).await;
        self.change_over(replaced.map_err(|_| why)?);
        Ok(())
    }

    fn close(&mut self, why: &str) {
        tracing::info!(why, "the session with the manager ended");
        self.next.abort_all();
        let ended = self.ties.session.send_replace(None);
        if let Some(OpenSession { with: With::Remote(address), .. }) = ended {
            self.ties.managers.note_failure(&address);
        }
    }

    /// Takes a message; gives what the agent is to do.
    fn take(&mut self, message: Option<Result<SessionMessage, CallError>>) -> Option<Assignments> {
        match message {
            Some(Ok(SessionMessage::Assignments(assignments))) => return Some(assignments),
            Some(Ok(SessionMessage::Changed(changed))) => self.learn(*changed),
            Some(Ok(SessionMessage::Logs(wish))) => {
                // With more than it can look at, its reader is told that this node says nothing.
                let _ = self.ties.wishes.try_send(*wish);
            }
            Some(Ok(SessionMessage::Hello(_) | SessionMessage::Other)) => {}
            Some(Ok(SessionMessage::Bye(bye))) => {
                if bye.is_removed {
                    self.ties.removed.cancel();
                }
                self.over(bye.reason);
            }
            Some(Err(error)) => {
                let error = of_call(error);
                if matches!(error, OpenError::Removed) {
                    self.ties.removed.cancel();
                }
                self.over(requests::chain(&error));
            }
            None => self.over("the manager closed it".to_owned()),
        }
        None
    }
}

impl Assigned for NodeSession {
    async fn next(&mut self) -> Option<Assignments> {
        loop {
            if let Err(why) = self.outlive().await {
                self.close(&why);
                return None;
            }
            let broken = self.broken.clone();
            tokio::select! {
                message = self.source.next() => {
                    if let Some(assignments) = self.take(message) {
                        return Some(assignments);
                    }
                }
                () = broken.cancelled() => self.over("the manager does not know it".to_owned()),
                Ok(()) = self.description.changed() => self.reopen(),
                opened = replacement(&mut self.next) => self.change_over(opened),
            }
        }
    }
}

/// The session that was opened to replace another; never, when none is. Cancel safe.
async fn replacement(next: &mut JoinSet<Opened>) -> Opened {
    loop {
        match next.join_next().await {
            Some(Ok(opened)) => return opened,
            // One that an even newer description made useless.
            Some(Err(_)) => {}
            None => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
#[path = "dispatcher_tests.rs"]
mod tests;
