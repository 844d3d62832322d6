//! Reads a log: what is there, and what is still to come.
//!
//! In: the path of a json-file log, and how much of it is wanted. Out: its entries, in order, one by one. Never keeps the
//! runtime's threads busy with the disk, and never disturbs the writer.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use objects::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::LogMessage;
use crate::follow::Changes;
use crate::scan::{Batch, Filter, Scanner};

/// How much of what is already there is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tail {
    /// Everything.
    #[default]
    All,
    /// The last so many entries, of those `until` allows. Zero gives only what is to come.
    Last(u64),
}

/// What is read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// How much of the past.
    pub tail: Tail,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries at or before this time.
    pub until: Option<Timestamp>,
    /// Wait for new entries until the value becomes true (the container has ended and its log is complete) or its sender is
    /// dropped; what was written until then is still returned. `None` reads what is there and ends.
    pub follow: Option<watch::Receiver<bool>>,
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// A file can't be opened or read.
    #[error("read log file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The log's directory can't be watched.
    #[error("watch log directory `{}`", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A stream of log entries.
#[derive(Debug)]
pub struct Reader {
    /// Where the files are read; away on a thread for blocking work while `Busy`.
    state: State,
    ready: VecDeque<LogMessage>,
    follow: Option<Follow>,
    dir: PathBuf,
}

#[derive(Debug)]
enum State {
    Idle(Box<Scanner>),
    Busy(JoinHandle<(Box<Scanner>, Result<Batch, ReadLogError>)>),
    Done,
}

#[derive(Debug)]
struct Follow {
    changes: Changes,
    ended: watch::Receiver<bool>,
    /// The container had ended before the files were read to their end for the last time.
    is_last_round: bool,
}

impl Reader {
    /// Opens the json-file log whose current file is `path`. A log that doesn't exist yet is empty.
    pub async fn open(path: &Path, options: ReadOptions) -> Result<Self, ReadLogError> {
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let follow = match options.follow {
            Some(ended) => {
                // Before the first look at the files: what happens between the two must wake us.
                let watched = Changes::watch(&dir);
                let changes = watched.map_err(|source| ReadLogError::Watch { path: dir.clone(), source })?;
                Some(Follow { changes, ended, is_last_round: false })
            }
            None => None,
        };
        let filter = Filter { since: options.since, until: options.until };
        let path = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || Scanner::open(&path, options.tail, filter));
        let scanner = opening.await.map_err(|error| stopped(&dir, error))??;
        Ok(Self { state: State::Idle(Box::new(scanner)), ready: VecDeque::new(), follow, dir })
    }

    /// The next entry in the order they were written; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<LogMessage>, ReadLogError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(batch) = self.read().await? else { return Ok(None) };
            self.ready.extend(batch.messages);
            let is_over = batch.is_past_until || (batch.is_at_end && !self.wait_for_more().await?);
            if is_over {
                self.state = State::Done;
            }
        }
    }

    /// One step on a thread for blocking work; `None` when all is read.
    async fn read(&mut self) -> Result<Option<Batch>, ReadLogError> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Ok(None),
                State::Idle(mut scanner) => {
                    if let Some(follow) = &mut self.follow {
                        follow.is_last_round = has_ended(&follow.ended);
                    }
                    self.state = State::Busy(tokio::task::spawn_blocking(move || {
                        let batch = scanner.step();
                        (scanner, batch)
                    }));
                }
                State::Busy(handle) => {
                    // Put back before waiting: a cancelled call must not lose the position.
                    self.state = State::Busy(handle);
                    let State::Busy(handle) = &mut self.state else { unreachable!("it was set above") };
                    let (scanner, batch) = handle.await.map_err(|error| stopped(&self.dir, error))?;
                    self.state = State::Idle(scanner);
                    return batch.map(Some);
                }
            }
        }
    }

    /// At the end of the files: whether another look is worth it, after waiting for a reason. Cancel safe: the next call
    /// then looks at the files first.
    async fn wait_for_more(&mut self) -> Result<bool, ReadLogError> {
        let Some(follow) = &mut self.follow else { return Ok(false) };
        if follow.is_last_round {
            return Ok(false);
        }
        tokio::select! {
            changed = follow.changes.next() => {
                changed.map_err(|source| ReadLogError::Watch { path: self.dir.clone(), source })?;
            }
            // Ended or nobody left who could tell: one more look, which is then the last.
            _ = follow.ended.wait_for(|&ended| ended) => {}
        }
        Ok(true)
    }
}

/// Whether the container has ended, or nobody is left to say so.
fn has_ended(ended: &watch::Receiver<bool>) -> bool {
    *ended.borrow() || ended.has_changed().is_err()
}

fn stopped(dir: &Path, error: JoinError) -> ReadLogError {
    ReadLogError::File { path: dir.to_owned(), source: io::Error::other(error) }
}
