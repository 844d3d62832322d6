//! Founding a swarm, joining one, and founding one anew from what a last manager knows.
//!
//! In: requests of the API. Out: a running member, or nothing on the disk. Only `state.json`, written last, makes this
//! machine a member.

use std::time::Duration;

use manager::{Code, Manager};
use objects::NodeRole;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::joining::{Entry, Machine, NotYet};
use crate::keys::Keys;
use crate::known_managers::random;
use crate::member::Member;
use crate::node::{Joining, SwarmNode};
use crate::pace::Pace;
use crate::requests::{self, InitRequest, JoinRequest, LocalNodeState, SwarmError};
use crate::serving::Serving;
use crate::state_file::{Membership, MembershipFile, Requested};
use crate::{address, found, unfinished};

/// How long the one who asks to join waits. Source: reference 8.1 (moby, `swarmConnectTimeout` 20 s).
const PATIENCE: Duration = Duration::from_secs(20);

impl SwarmNode {
    /// Founds a swarm with this node as its manager; returns the node's id. With `force_new_cluster` on a manager, its
    /// swarm goes on with this one as the only manager.
    ///
    /// Errors: `AlreadyInSwarm`, `InvalidRequest`, `Unsupported`; with `force_new_cluster`, `IsWorker` and `Locked`.
    pub async fn init(&self, request: InitRequest) -> Result<String, SwarmError> {
        let _turn = self.turn().await?;
        if self.is_member() {
            return match request.force_new_cluster {
                true => self.force_new_cluster(&request).await,
                false => Err(SwarmError::AlreadyInSwarm),
            };
        }
        let config = &self.inner.config;
        let draft = found::draft(&request, config)?;
        Membership::wipe(&config.directory)
            .map_err(|error| requests::failed("clear the swarm's directory", error))?;
        let id = draft.membership.node_id.clone();
        let founded = self.found(draft).await;
        if founded.is_err() {
            self.undo().await;
        }
        founded.map(|()| id)
    }

    /// Leaves nothing behind of a founding or joining that failed.
    async fn undo(&self) {
        self.stop_running().await;
        if let Err(error) = Membership::wipe(&self.inner.config.directory) {
            tracing::warn!(%error, "what failed left files of a swarm behind");
        }
        *self.part() = crate::node::Part::default();
    }

    async fn found(&self, draft: found::Draft) -> Result<(), SwarmError> {
        let directory = &self.inner.config.directory;
        let certificates = directory.join("certificates");
        std::fs::create_dir_all(directory)
            .map_err(|error| requests::failed("make the swarm's directory", error))?;
        let keep = |error| requests::failed("keep this node's certificate", error);
        draft.key.save(&certificates, draft.lock.as_ref()).map_err(keep)?;
        draft.files.save(&certificates).map_err(keep)?;
        let membership = MembershipFile::new(directory, draft.membership.clone());
        let keys = Keys::new(certificates, draft.key, draft.lock);
        let member = Member::new(directory, membership.clone(), keys, draft.files)
            .map_err(|error| requests::failed("use this node's certificate", error))?;
        let config =
            member.premises.config().map_err(|error| requests::failed("make this manager's keys", error))?;
        let manager = Box::pin(Manager::found(config, draft.founding))
            .await
            .map_err(|error| requests::failed("found the swarm", error))?;
        let serving = self.serve(&member, manager).await?;
        let kept = async {
            draft
                .membership
                .save(directory)
                .map_err(|error| requests::failed("keep this node's membership", error))?;
            self.start_agent(&membership).await
        };
        if let Err(error) = kept.await {
            serving.stop().await;
            return Err(error);
        }
        self.start_member(member, Some(serving));
        Ok(())
    }

    async fn serve(&self, member: &Member, manager: Manager) -> Result<Serving, SwarmError> {
        member
            .premises
            .serve(manager)
            .await
            .map_err(|error| requests::failed("serve the swarm's nodes", error))
    }

    /// Goes on with the swarm as this manager knows it, without the other managers.
    async fn force_new_cluster(&self, request: &InitRequest) -> Result<String, SwarmError> {
        let (membership, is_locked, keys, role) = {
            let part = self.part();
            let role = part.ties.as_ref().map(|ties| ties.credentials.role());
            (part.membership.clone(), part.locked.is_some(), part.keys.clone(), role)
        };
        if is_locked {
            return Err(SwarmError::Locked);
        }
        let (Some(membership), Some(keys), Some(NodeRole::Manager)) = (membership, keys, role) else {
            return Err(SwarmError::IsWorker);
        };
        let mut next = membership.get();
        if !request.advertise_addr.is_empty() {
            next.requested = Requested {
                listen_addr: request.listen_addr.clone(),
                advertise_addr: request.advertise_addr.clone(),
                data_path_addr: request.data_path_addr.clone(),
                link: String::new(),
            };
            let machine = address::of_this_machine().map_err(requests::invalid)?;
            address::choose(&next.requested, None, &machine, None)
                .map_err(requests::invalid)?
                .apply(&mut next);
        }
        self.stop_running().await;
        membership
            .change(|membership| *membership = next)
            .map_err(|error| requests::failed("keep this node's membership", error))?;
        self.start_agent(&membership).await?;
        let id = membership.get().node_id;
        if let Err(error) = self.anew(&membership, keys.clone()).await {
            // As it was before, as far as that goes.
            self.start_open(&membership, keys);
            return Err(error);
        }
        Ok(id)
    }

    async fn anew(&self, membership: &MembershipFile, keys: Keys) -> Result<(), SwarmError> {
        let member = self.member_on_disk(membership, keys)?;
        let config =
            member.premises.config().map_err(|error| requests::failed("read this manager's keys", error))?;
        let manager = Box::pin(Manager::force_new_cluster(config))
            .await
            .map_err(|error| requests::failed("found the swarm anew", error))?;
        let serving = self.serve(&member, manager).await?;
        self.start_member(member, Some(serving));
        Ok(())
    }

    /// Joins a swarm. Waits until a manager has taken this node, and until its own serves when it is one, for 20 s at most;
    /// it goes on in the background then.
    ///
    /// Errors: `AlreadyInSwarm`, `InvalidRequest`, `ForeignRoot`, `Refused`, `JoinTimeout`.
    pub async fn join(&self, request: JoinRequest) -> Result<(), SwarmError> {
        let _turn = self.turn().await?;
        if self.is_member() {
            return Err(SwarmError::AlreadyInSwarm);
        }
        let entry = Entry::check(request.clone(), self.machine())?;
        let mut refused = self.begin_to_join(entry, false);
        let taken = self.until(Self::is_in_place);
        let outcome = tokio::select! {
            () = taken => Ok(()),
            // The sender is dropped without a word when this node is a member.
            Ok(error) = &mut refused => Err(error),
            () = tokio::time::sleep(PATIENCE) => {
                self.keep_joining(&request);
                refused.close();
                Err(refused.try_recv().unwrap_or(SwarmError::JoinTimeout))
            }
        };
        if !matches!(outcome, Ok(()) | Err(SwarmError::JoinTimeout)) {
            self.undo().await;
        }
        outcome
    }

    fn machine(&self) -> Machine {
        let config = &self.inner.config;
        Machine {
            directory: config.directory.clone(),
            hostname: config.hostname.clone(),
            default_advertise_addr: config.default_advertise_addr.clone(),
        }
    }

    /// Joins in the background; gives why it cannot be, while somebody waits for that. `goes_on` says that nobody does.
    fn begin_to_join(&self, entry: Entry, goes_on: bool) -> oneshot::Receiver<SwarmError> {
        let (refuse, refused) = oneshot::channel();
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (node, stop) = (self.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(node.enter(entry)).await
                && let Err(error) = refuse.send(error)
            {
                // Nobody waits any more.
                node.give_up_joining(&error);
            }
        });
        self.part().joining = Some(Joining { stopping, tasks, trouble: String::new(), goes_on });
        refused
    }

    /// Lets the attempt go on after a restart of the daemon.
    fn keep_joining(&self, request: &JoinRequest) {
        let directory = &self.inner.config.directory;
        if let Err(error) = unfinished::keep(directory, request) {
            tracing::warn!(%error, "a restart would end the attempt to join the swarm");
        }
        if let Some(joining) = &mut self.part().joining {
            joining.goes_on = true;
        }
        // It may have come about just now.
        if self.part().membership.is_some() {
            self.forget_unfinished();
        }
    }

    pub(crate) fn forget_unfinished(&self) {
        if let Err(error) = unfinished::forget(&self.inner.config.directory) {
            tracing::warn!(%error, "the request to join, which is over, was left on disk");
        }
    }

    /// Goes on with a join that was under way when the daemon stopped. What a founding or joining that was cut short left
    /// behind is removed.
    pub(crate) fn go_on_joining(&self) -> Result<(), SwarmError> {
        let directory = &self.inner.config.directory;
        let clear = |error| requests::failed("clear the swarm's directory", error);
        match unfinished::load(directory) {
            Ok(None) => Membership::wipe(directory).map_err(clear),
            Ok(Some(request)) => {
                unfinished::clear_beside(directory).map_err(clear)?;
                match Entry::check(request, self.machine()) {
                    Ok(entry) => drop(self.begin_to_join(entry, true)),
                    Err(error) => self.give_up_joining(&error),
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "an attempt to join a swarm cannot be read and is forgotten");
                Membership::wipe(directory).map_err(clear)
            }
        }
    }

    /// Whether this node does the part that its certificate gives it. Source: moby waits for `node.Ready`, which for a
    /// manager includes its own; clients ask `/info` at once whether it is one.
    fn is_in_place(&self) -> bool {
        let local = self.local_state();
        let role = self.part().ties.as_ref().map(|ties| ties.credentials.role());
        local.state == LocalNodeState::Active && (local.control_available || role != Some(NodeRole::Manager))
    }

    /// Tries until this machine is a node, or is told that it cannot be.
    async fn enter(&self, entry: Entry) -> Result<(), SwarmError> {
        let mut pace = Pace::default();
        let entered = loop {
            tokio::time::sleep(pace.wait(random())).await;
            match entry.enter().await {
                Ok(entered) => break entered,
                Err(NotYet::Final(error)) if !self.is_worth_waiting(&error) => return Err(error),
                Err(NotYet::Passing(error) | NotYet::Final(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "not in the swarm yet");
                    if let Some(joining) = &mut self.part().joining {
                        joining.trouble = requests::chain(&error);
                    }
                    pace.failed();
                }
            }
        };
        self.start_agent(&entered.membership).await?;
        self.forget_unfinished();
        let member =
            Member::new(&self.inner.config.directory, entered.membership, entered.keys, entered.files)
                .map_err(|error| requests::failed("use this node's certificate", error))?;
        self.start_member(member, None);
        Ok(())
    }

    /// Whether an attempt that nobody waits for goes on after this: the manager that was not reached may be back one day.
    fn is_worth_waiting(&self, error: &SwarmError) -> bool {
        let goes_on = self.part().joining.as_ref().is_some_and(|joining| joining.goes_on);
        goes_on && matches!(error, SwarmError::Refused { code: Code::Unavailable, .. })
    }

    /// The attempt to join came to nothing after the one who asked had gone.
    fn give_up_joining(&self, error: &SwarmError) {
        tracing::error!(error = error as &dyn std::error::Error, "joining the swarm was given up");
        self.forget_unfinished();
        self.part().error = requests::chain(error);
        self.inner.settled.notify_waiters();
    }
}
