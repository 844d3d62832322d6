//! The way from the agent to a manager: in this process now, over a network later.

use std::error::Error;
use std::future::Future;

use manager::{Assignments, Manager, ManagerError, Session};
use objects::{NodeDescription, NodeId, TaskId, TaskStatus};

/// A manager that the agent can reach.
pub(crate) trait Link: Clone + Send + Sync + 'static {
    /// An open session.
    type Session: Assigned;
    /// Why a call failed.
    type Error: Error + Send + Sync + 'static;

    /// Says who this node is; it is ready from then on.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, Self::Error>> + Send;
    /// Reports the states of tasks.
    fn report(
        &self,
        statuses: Vec<(TaskId, TaskStatus)>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What a session gives.
pub(crate) trait Assigned: Send + 'static {
    /// The next assignments; `None` when the session is over. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Assignments>> + Send;
}

/// The manager in this process.
#[derive(Clone)]
pub(crate) struct LocalManager {
    pub(crate) manager: Manager,
    pub(crate) node: NodeId,
    pub(crate) description: NodeDescription,
    pub(crate) address: String,
}

impl Link for LocalManager {
    type Session = Session;
    type Error = ManagerError;

    async fn connect(&self) -> Result<Session, ManagerError> {
        self.manager.open_session(&self.node, self.description.clone(), &self.address).await
    }

    async fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> Result<(), ManagerError> {
        self.manager.report(&self.node, statuses).await
    }
}

impl Assigned for Session {
    async fn next(&mut self) -> Option<Assignments> {
        Session::next(self).await
    }
}
