//! Where a pull, load or import tells how far it is.
//!
//! In: lines of Docker's JSON stream. Out: the same on a bounded channel. Never fails when nobody listens, and
//! never drops a line that changes a state: a slow listener slows the work down.

use docker::ProgressMessage;
use tokio::sync::mpsc;

/// Where progress goes. Cheap to clone; [`ProgressSender::none`] discards.
///
/// 64 lines are a good bound for the channel: lines that only count are skipped while it is full.
#[derive(Clone, Debug, Default)]
pub struct ProgressSender(Option<mpsc::Sender<ProgressMessage>>);

impl ProgressSender {
    /// Discards everything.
    pub fn none() -> ProgressSender {
        ProgressSender(None)
    }

    /// Sends into `channel`, waiting while it is full. A closed channel is no error.
    pub fn new(channel: mpsc::Sender<ProgressMessage>) -> ProgressSender {
        ProgressSender(Some(channel))
    }

    /// Delivers a change of state; waits for room.
    pub(crate) async fn send(&self, line: ProgressMessage) {
        if let Some(channel) = &self.0 {
            // A listener that went away does not stop the work: whoever wants that drops the future.
            let _is_gone = channel.send(line).await.is_err();
        }
    }

    /// Delivers a mere count if there is room; the next one replaces it anyway.
    pub(crate) fn offer(&self, line: ProgressMessage) {
        if let Some(channel) = &self.0 {
            let _is_full = channel.try_send(line).is_err();
        }
    }
}

/// A count of bytes as Docker's JSON has it: signed.
pub(crate) fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
