//! Connects running containers to networks, and disconnects them.
//!
//! In: a container that is attached, a network. Out: what the container has then, in the kernel as well; on an error,
//! everything is as before.

use crate::error::{AttachError, ConnectError};
use crate::registry::Kind;
use crate::worker::Worker;
use crate::{Attachment, ConnectRequest, NetworkError, sandbox};

/// A change of a container's networks that is still to be made in its namespace.
pub(crate) struct Change {
    pub(crate) container_id: String,
    pub(crate) before: Attachment,
    pub(crate) after: Attachment,
    pub(crate) pid: i32,
}

impl Worker {
    /// Gives a container one endpoint more.
    pub(crate) fn connect(&mut self, request: &ConnectRequest) -> Result<Change, ConnectError> {
        self.check_given(&request.container_id, &request.join)?;
        self.ensure_way_out(std::slice::from_ref(&request.join))?;
        self.ensure_bridge_of(&request.join.network)?;
        let before = self.attachment(&request.container_id)?;
        let after = self.wanted.connect(request)?;
        Ok(Change { container_id: request.container_id.clone(), before, after, pid: request.pid })
    }

    /// Takes a container's endpoint in a network away.
    pub(crate) fn disconnect(
        &mut self,
        container_id: &str,
        network: &str,
        pid: i32,
    ) -> Result<Change, ConnectError> {
        let before = self.attachment(container_id)?;
        let id = match self.wanted.networks.find(network) {
            Ok(entry) => entry.record.id.clone(),
            // It may be gone, and its endpoint left.
            Err(_) => network.to_owned(),
        };
        let Some(endpoint) = before.endpoint(&id) else {
            return Err(ConnectError::NotConnected {
                container_id: container_id.to_owned(),
                network: network.to_owned(),
            });
        };
        let after = self.wanted.disconnect(container_id, &endpoint.endpoint_id);
        self.forget_flows(endpoint);
        Ok(Change { container_id: container_id.to_owned(), before, after, pid })
    }

    fn attachment(&self, container_id: &str) -> Result<Attachment, ConnectError> {
        let found = self.wanted.attachment(container_id);
        found.cloned().ok_or_else(|| ConnectError::NotRunning(container_id.to_owned()))
    }

    /// Makes the change in the container's namespace, once the rules are there.
    pub(crate) fn finish(
        &mut self,
        change: Change,
        outcome: Result<(), NetworkError>,
    ) -> Result<Attachment, ConnectError> {
        match outcome.and_then(|()| sandbox::change(&change.before, &change.after, change.pid)) {
            Ok(()) => {
                let pid = change.pid.unsigned_abs();
                if let Err(error) = self.swarm.plug(&change.container_id, pid, &change.after) {
                    tracing::warn!(
                        container.id = change.container_id,
                        error = &error as &dyn std::error::Error,
                        "no virtual addresses"
                    );
                }
                Ok(change.after)
            }
            Err(error) => {
                self.wanted.put_back(&change.container_id, &change.before);
                // What was made on the way to the failure; it may be nothing.
                let _ = sandbox::change(&change.after, &change.before, change.pid);
                self.status.rules_doubtful = true;
                Err(ConnectError::Attach(AttachError::Apply(error)))
            }
        }
    }

    /// Makes the network by which containers on these networks reach what lies beyond, when they need one.
    pub(crate) fn ensure_way_out(&mut self, joins: &[crate::NetworkJoin]) -> Result<(), AttachError> {
        let is_overlay = |join: &crate::NetworkJoin| {
            let entry = self.wanted.networks.find(&join.network);
            entry.is_ok_and(|entry| matches!(entry.kind, Kind::Overlay(_)) && !entry.record.is_internal)
        };
        if joins.iter().any(is_overlay) {
            self.ensure_gateway_bridge().map_err(|error| AttachError::WayOut(Box::new(error)))?;
            self.ensure_bridge_of(crate::create::GATEWAY_BRIDGE)?;
        }
        Ok(())
    }
}
