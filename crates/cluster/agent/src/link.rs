//! The seam between the agent and the managers: sessions that say what to run, and reports of what runs.
//!
//! What finds a manager, tries again and changes over to another one stands behind it (`dispatcher`); the tests of the
//! agent put a small fake there.

use std::error::Error;
use std::future::Future;

use objects::{TaskId, TaskStatus};
use wire::session::Assignments;

/// The managers, as the agent needs them.
pub(crate) trait Link: Clone + Send + Sync + 'static {
    /// An open session.
    type Session: Assigned;
    /// Why a report did not arrive.
    type Error: Error + Send + Sync + 'static;

    /// Opens a session with a manager; tries until one takes it. Cancel safe.
    fn connect(&self) -> impl Future<Output = Self::Session> + Send;
    /// Reports the states of tasks in the session that is open.
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
