//! Fetches one layer's blob: resumed after an interruption, verified while it streams.
//!
//! In: a session and what the manifest says of the blob. Out: the blob in place. Never leaves a partial blob where
//! a whole one is expected, and never keeps one when the future is dropped.

use std::time::{Duration, Instant};

use docker::ProgressMessage;
use futures_util::StreamExt;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};

use crate::disk::Temp;
use crate::errors::{FileError, PullError};
use crate::ids::Hasher;
use crate::index::Descriptor;
use crate::progress::{ProgressSender, count};
use crate::registry::Session;
use crate::shelf::{Shelf, Turn};

/// Source: moby, `distribution/xfer`, `maxDownloadAttempts`.
pub(crate) const MAX_TRIES: u32 = 5;
/// Pause before the second try; doubles each time. Chosen: all tries together outlast a registry's restart.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Chosen: ten updates a second look smooth.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Chosen: each write becomes a job for another thread.
const WRITE_BUFFER: usize = 256 * 1024;

/// Tells the caller and everybody who waits for the same work.
pub(crate) struct Teller<'a> {
    pub(crate) progress: &'a ProgressSender,
    pub(crate) turn: &'a Turn,
    /// The layer's name in progress lines.
    pub(crate) id: &'a str,
}

impl Teller<'_> {
    /// A change of state.
    pub(crate) async fn state(&self, text: &str) {
        let line = ProgressMessage::layer(self.id, text);
        self.turn.tell(&line);
        self.progress.send(line).await;
    }

    /// Mere counting.
    pub(crate) fn bytes(&self, text: &str, current: u64, total: u64) {
        let line = ProgressMessage::bytes(self.id, text, count(current), count(total));
        self.turn.tell(&line);
        self.progress.offer(line);
    }
}

/// Repeats what failed for a reason that may pass, with growing pauses.
pub(crate) async fn with_retries<T>(
    mut op: impl AsyncFnMut() -> Result<T, PullError>,
) -> Result<T, PullError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..MAX_TRIES {
        match op().await {
            Err(e) if e.is_transient() => {
                tracing::info!(error = %e, pause_ms = pause.as_millis() as u64, "registry failed, trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    op().await
}

/// Makes the blob present in the store. The caller has pinned it.
pub(crate) async fn download(
    shelf: &Shelf,
    session: &Session,
    blob: &Descriptor,
    teller: &Teller<'_>,
) -> Result<(), PullError> {
    let temp = shelf.disk.temp("download");
    let mut partial = Partial::create(temp, blob.clone()).await?;
    with_retries(async || {
        let outcome = partial.fetch(session, teller).await;
        if outcome.is_err() {
            // What was received must be on disk before a resumed try counts on it.
            partial.flush().await?;
        }
        outcome
    })
    .await?;
    teller.state("Verifying Checksum").await;
    partial.flush().await?;
    let to = shelf.disk.blob(&blob.digest);
    partial.temp.put(&to)?;
    teller.state("Download complete").await;
    Ok(())
}

/// What has arrived so far.
struct Partial {
    temp: Temp,
    file: BufWriter<File>,
    blob: Descriptor,
    hasher: Hasher,
    offset: u64,
}

impl Partial {
    async fn create(temp: Temp, blob: Descriptor) -> Result<Partial, FileError> {
        let file = File::create(temp.path()).await.map_err(FileError::at("open", temp.path()))?;
        let file = BufWriter::with_capacity(WRITE_BUFFER, file);
        Ok(Partial { temp, file, blob, hasher: Hasher::default(), offset: 0 })
    }

    async fn flush(&mut self) -> Result<(), FileError> {
        self.file.flush().await.map_err(FileError::at("write", self.temp.path()))
    }

    /// Throws away what has arrived.
    async fn restart(&mut self) -> Result<(), FileError> {
        self.flush().await?;
        let file = self.file.get_mut();
        let at = |e| FileError::at("truncate", self.temp.path())(e);
        file.set_len(0).await.map_err(at)?;
        file.rewind().await.map_err(at)?;
        (self.hasher, self.offset) = (Hasher::default(), 0);
        Ok(())
    }

    /// One try, from where the last one ended.
    async fn fetch(&mut self, session: &Session, teller: &Teller<'_>) -> Result<(), PullError> {
        let has_resumed = self.offset > 0;
        let mut stream = session.blob(&self.blob.digest, self.offset).await?;
        if stream.offset != self.offset {
            self.restart().await?;
        }
        let mut reported = Instant::now();
        teller.bytes("Downloading", self.offset, self.blob.size);
        while let Some(chunk) = stream.chunks.next().await {
            let chunk = chunk?;
            if self.offset + chunk.len() as u64 > self.blob.size {
                let digest = &self.blob.digest;
                return Err(PullError::Invalid(format!("blob {digest} is longer than its manifest says")));
            }
            self.hasher.update(&chunk);
            self.file.write_all(&chunk).await.map_err(FileError::at("write", self.temp.path()))?;
            self.offset += chunk.len() as u64;
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                teller.bytes("Downloading", self.offset, self.blob.size);
            }
        }
        self.check(has_resumed).await
    }

    async fn check(&mut self, has_resumed: bool) -> Result<(), PullError> {
        let digest = self.blob.digest.clone();
        if self.offset < self.blob.size {
            let cause = "unexpected EOF".to_owned();
            return Err(PullError::Transport {
                method: "Get",
                url: digest.to_string(),
                cause,
                is_transient: true,
            });
        }
        let found = self.hasher.clone().finish();
        if found == digest {
            return Ok(());
        }
        if has_resumed {
            // Perhaps the parts do not belong together: one more try from the start.
            self.restart().await?;
            let cause = "resumed transfer is damaged".to_owned();
            return Err(PullError::Transport {
                method: "Get",
                url: digest.to_string(),
                cause,
                is_transient: true,
            });
        }
        Err(PullError::WrongDigest { what: "filesystem layer", expected: digest, found })
    }
}
