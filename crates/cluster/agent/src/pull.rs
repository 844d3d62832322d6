//! Pulls the images of tasks.
//!
//! In: a reference, credentials. Out: nothing, or why the registry did not give it; whoever makes the container then
//! tries with what is there. An id is never pulled, nor is a reference with a digest that is here; a tag always is, unless
//! `DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1` says otherwise. Source: moby, `daemon/cluster/executor/container/controller.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use docker::AuthConfig;
use images::{ProgressSender, PullOptions, Store};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The variable of the daemon's environment that keeps tags from being pulled when they are here.
const PREFER_OFFLINE: &str = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE";

/// How long an answer of a registry holds for other tasks of the same image. chosen: the tasks of one service start
/// within seconds of each other, and asking once for all of them is what a person would do.
const ANSWER_HOLDS: Duration = Duration::from_secs(5);

/// How long a registry may take when the image is here already. chosen: a registry that is away must not keep a service
/// from being started again.
const PATIENCE_WITH_LOCAL: Duration = Duration::from_secs(15);

/// Answers kept. chosen: far more images than a machine starts within `ANSWER_HOLDS`.
const ANSWERS: usize = 256;

type Answer = Arc<OnceCell<Result<(), String>>>;

/// Reference and credentials → when the registry was asked, and what it said.
type Asked = BTreeMap<(String, String), (Instant, Answer)>;

/// Pulls each image once for all tasks that want it at the same time.
#[derive(Clone)]
pub(crate) struct Puller {
    images: Store,
    prefers_offline: bool,
    asked: Arc<Mutex<Asked>>,
}

impl Puller {
    pub(crate) fn new(images: Store) -> Self {
        let prefers_offline = std::env::var_os(PREFER_OFFLINE).is_some_and(|value| value == "1");
        Self { images, prefers_offline, asked: Arc::default() }
    }

    /// Pulls `reference` if the rules say so; the error is the text of the true cause.
    pub(crate) async fn pull(&self, reference: &str, registry_auth: &str) -> Result<(), String> {
        if is_id(reference) {
            return Ok(());
        }
        let is_here = self.images.resolve(reference).is_ok();
        if is_here && (self.prefers_offline || reference.contains('@')) {
            return Ok(());
        }
        let answer = self.answer(reference, registry_auth);
        let ask = || async {
            let pulled = self.ask(reference, registry_auth, is_here).await;
            match &pulled {
                Ok(()) => {}
                // Many images only exist on the machine: that they start is no news, and why they are not newer is seldom.
                Err(cause) if is_here => {
                    tracing::debug!(image = reference, cause, "image not pulled, it is here")
                }
                Err(cause) => tracing::warn!(image = reference, cause, "image not pulled"),
            }
            pulled
        };
        answer.get_or_init(ask).await.clone()
    }

    fn answer(&self, reference: &str, registry_auth: &str) -> Answer {
        let mut asked = self.asked.lock().expect("nothing panics while it holds this lock");
        asked.retain(|_, (at, answer)| at.elapsed() < ANSWER_HOLDS || answer.get().is_none());
        if asked.len() >= ANSWERS {
            asked.pop_first();
        }
        let key = (reference.to_owned(), registry_auth.to_owned());
        let (_, answer) = asked.entry(key).or_insert_with(|| (Instant::now(), Answer::default()));
        Arc::clone(answer)
    }

    async fn ask(&self, reference: &str, registry_auth: &str, is_here: bool) -> Result<(), String> {
        let auth = credentials(registry_auth);
        let options = PullOptions { reference: reference.to_owned(), platform: None, auth };
        let pull = pull_on_a_thread(self.images.clone(), options);
        if !is_here {
            return pull.await;
        }
        match tokio::time::timeout(PATIENCE_WITH_LOCAL, pull).await {
            Ok(pulled) => pulled,
            Err(_) => Err("the registry did not answer in time".to_owned()),
        }
    }
}

/// Whether this is an image's id, which no registry knows.
/// Source: moby, `daemon/cluster/executor/container/adapter.go`, `pullImage`.
fn is_id(reference: &str) -> bool {
    let digest = reference.strip_prefix("sha256:").unwrap_or_default();
    digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Without credentials that can be read, a public image can still be had.
/// Source: moby, `daemon/cluster/executor/container/adapter.go`, `pullImage`.
fn credentials(registry_auth: &str) -> Option<AuthConfig> {
    AuthConfig::from_header(registry_auth).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a service's registry credentials cannot be read"
        );
        None
    })
}

/// Pulls on a thread that may block: the future of a pull does not move between threads (the compiler cannot prove that
/// it may). Giving up stops it at its next wait.
async fn pull_on_a_thread(images: Store, options: PullOptions) -> Result<(), String> {
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    let runtime = Handle::current();
    let pull = move || {
        let pull = images.pull(options, ProgressSender::none());
        match runtime.block_on(stop.run_until_cancelled(pull)) {
            None => Err("the pull was given up".to_owned()),
            Some(pulled) => pulled.map(drop).map_err(|error| images::message(&error)),
        }
    };
    tokio::task::spawn_blocking(pull).await.map_err(|_| "the pull ended badly".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_cannot_be_read_are_none() {
        let known = AuthConfig { username: "me".to_owned(), ..AuthConfig::default() };
        assert_eq!(credentials(&known.to_header()), Some(known));
        for unreadable in ["", "%", "bm8ganNvbg=="] {
            assert_eq!(credentials(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn an_id_is_told_from_a_name() {
        let hex = "0123456789abcdef".repeat(4);
        for (reference, expected) in [
            (format!("sha256:{hex}"), true),
            (format!("nginx@sha256:{hex}"), false),
            (format!("sha256:{}", &hex[1..]), false),
            ("sha256:latest".to_owned(), false),
            (hex, false),
        ] {
            assert_eq!(is_id(&reference), expected, "{reference}");
        }
    }
}
