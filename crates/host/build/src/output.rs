//! The lines of a build, as moby's builder prints them.
//!
//! In: texts. Out: JSON lines on a bounded channel; with `--quiet` they are kept for the case of a failure. Never fails
//! when nobody listens.

use std::cell::RefCell;

use docker::ProgressMessage;
use images::ProgressSender;
use tokio::sync::mpsc;

/// Most text that a quiet build keeps. Chosen: what a person reads of a failed build, and no more than a daemon can spare.
const MAX_KEPT: usize = 4 << 20;

/// Where lines go.
pub struct Output {
    sender: mpsc::Sender<ProgressMessage>,
    /// What a quiet build does not say unless it fails.
    kept: Option<RefCell<Vec<ProgressMessage>>>,
}

impl Output {
    /// Sends into `sender`, waiting while it is full.
    pub fn new(sender: mpsc::Sender<ProgressMessage>, is_quiet: bool) -> Output {
        Output { sender, kept: is_quiet.then(RefCell::default) }
    }

    /// Where a pull tells how far it is.
    pub(crate) fn pulling(&self) -> ProgressSender {
        match self.kept {
            Some(_) => ProgressSender::none(),
            None => ProgressSender::new(self.sender.clone()),
        }
    }

    /// Text as it is.
    pub(crate) async fn text(&self, text: impl Into<String>) {
        self.send(ProgressMessage::stream(text)).await;
    }

    /// A warning or what a command wrote to its standard error: red, as moby's `StderrFormatter` makes it.
    pub(crate) async fn red(&self, text: &str) {
        self.send(ProgressMessage::stream(format!("\u{1b}[91m{text}\u{1b}[0m"))).await;
    }

    /// The id of an image, for programs.
    pub(crate) async fn image(&self, id: &str) {
        if self.kept.is_none() {
            let aux = Some(serde_json::json!({"ID": id}));
            self.send(ProgressMessage { aux, ..ProgressMessage::default() }).await;
        }
    }

    /// What a quiet build kept to itself, for one that failed.
    pub async fn tell_all(&self) {
        let Some(kept) = &self.kept else { return };
        for line in kept.take() {
            let _is_gone = self.sender.send(line).await.is_err();
        }
    }

    async fn send(&self, line: ProgressMessage) {
        match &self.kept {
            Some(kept) => {
                let mut kept = kept.borrow_mut();
                let len: usize = kept.iter().filter_map(|line| line.stream.as_ref()).map(String::len).sum();
                if len < MAX_KEPT {
                    kept.push(line);
                }
            }
            // A listener that went away does not stop the work: whoever wants that drops the future.
            None => drop(self.sender.send(line).await),
        }
    }
}
