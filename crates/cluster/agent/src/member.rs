//! Everything that runs on behalf of a member, besides its agent: sessions, proofs of life, certificate, manager.
//!
//! In: what is on this node's disk. Out: tasks, stopped together. What they tell each other goes through `ties`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use manager::Manager;
use objects::NodeDescription;
use pki::NodeFiles;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::attach::{AttachRequest, Attached};
use wire::logs::LogWish;

use crate::credentials::{Credentials, CredentialsError};
use crate::dispatcher::{CallFailed, Dispatcher, NodeSession, ReportError};
use crate::keep_manager::{self, Premises, Standing};
use crate::keys::Keys;
use crate::known_managers::Managers;
use crate::link::Link;
use crate::node::SwarmNodeConfig;
use crate::serving::Serving;
use crate::state_file::MembershipFile;
use crate::ties::Ties;
use crate::{describe, encryption, publish_logs, pulse, renewal};

/// A member whose parts are put together and do not run yet.
pub(crate) struct Member {
    pub(crate) premises: Premises,
    wishes: mpsc::Receiver<LogWish>,
}

/// A member's parts at work.
pub(crate) struct Running {
    pub(crate) ties: Ties,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl Member {
    /// From what is on disk; `keys` are open.
    pub(crate) fn new(
        directory: &Path,
        membership: MembershipFile,
        keys: Keys,
        files: NodeFiles,
    ) -> Result<Self, CredentialsError> {
        let credentials = Credentials::new(directory.join("certificates"), keys.node_key(), files)?;
        let known = membership.get();
        let data_path = (known.data_path_addr != known.node_addr).then_some(known.data_path_addr);
        let (wish, wishes) = mpsc::channel(publish_logs::BACKLOG);
        let ties = Ties {
            wishes: wish,
            node: known.node_id.as_str().into(),
            client: rpc::Client::new(credentials.tls()),
            credentials,
            managers: Managers::new(known.managers),
            own: Arc::new(watch::Sender::new(None)),
            description: Arc::new(watch::Sender::new(NodeDescription::default())),
            address: known.node_addr,
            data_path_address: data_path,
            encryption_generation: Arc::new(watch::Sender::new(0)),
            network_keys: Arc::new(watch::Sender::new(Vec::new())),
            session: Arc::new(watch::Sender::new(None)),
            renew: Arc::new(Notify::new()),
            trouble: Arc::new(watch::Sender::new(String::new())),
            removed: CancellationToken::new(),
        };
        let premises = Premises { directory: directory.join("raft"), ties, membership, keys };
        Ok(Self { premises, wishes })
    }

    /// Starts all parts; `first` is a manager that serves already.
    pub(crate) fn start(
        self,
        config: SwarmNodeConfig,
        labels: watch::Receiver<Vec<String>>,
        first: Option<Serving>,
        tell: impl Fn(Standing) + Send + Sync + 'static,
    ) -> Running {
        let Premises { ties, membership, .. } = self.premises.clone();
        let description = describe::describe(&config, &labels.borrow());
        let tls_info = ties.credentials.certified().tls_info();
        ties.description.send_replace(NodeDescription { tls_info, ..description });
        let network = config.engine.network().clone();
        ties.encryption_generation.send_replace(*network.encryption_generation().borrow());
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(encryption::run(network, ties.clone(), stopping.clone()));
        let logs = Arc::clone(&config.logs);
        tasks.spawn(publish_logs::run(ties.clone(), logs, self.wishes, stopping.clone()));
        tasks.spawn(describe::keep(config, labels, ties.clone(), stopping.clone()));
        tasks.spawn(renewal::run(ties.clone(), stopping.clone()));
        tasks.spawn(pulse::run(ties.clone(), stopping.clone()));
        tasks.spawn(remember(ties.managers.clone(), membership, stopping.clone()));
        tasks.spawn(keep_manager::keep(self.premises, first, tell, stopping.clone()));
        Running { ties, stopping, tasks }
    }
}

impl Running {
    /// Stops all parts, the manager among them.
    pub(crate) async fn stop(mut self) {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the swarm node ended badly");
            }
        }
        self.ties.own.send_replace(None::<Manager>);
    }
}

/// Keeps the known managers on disk: what this node turns to when it starts.
async fn remember(managers: Managers, membership: MembershipFile, stopping: CancellationToken) {
    let mut list = managers.follow();
    loop {
        let known = list.borrow_and_update().clone();
        let file = membership.clone();
        let saved =
            tokio::task::spawn_blocking(move || file.change(|membership| membership.managers = known));
        let saved = saved.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = saved {
            tracing::warn!(%error, "the swarm's managers were not kept on disk");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            Ok(()) = list.changed() => {}
        }
    }
}

/// The agent's way to the managers: none until this node can prove who it is.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) dispatcher: watch::Receiver<Option<Dispatcher>>,
}

impl Gate {
    /// Asks a manager for a container's place on a network.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<Attached, CallFailed> {
        let dispatcher = self.dispatcher.borrow().clone();
        dispatcher.ok_or(CallFailed::NoSession)?.attach(request).await
    }
}

impl Link for Gate {
    type Session = NodeSession;
    type Error = ReportError;

    async fn connect(&self) -> NodeSession {
        let mut dispatcher = self.dispatcher.clone();
        let opened = match dispatcher.wait_for(Option::is_some).await {
            Ok(dispatcher) => dispatcher.clone(),
            Err(_) => None,
        };
        match opened {
            Some(dispatcher) => dispatcher.connect().await,
            // It will never be open any more: this node stops.
            None => std::future::pending().await,
        }
    }

    async fn report(&self, statuses: Vec<(objects::TaskId, objects::TaskStatus)>) -> Result<(), ReportError> {
        let dispatcher = self.dispatcher.borrow().clone();
        dispatcher.ok_or(ReportError::NoSession)?.report(statuses).await
    }
}
