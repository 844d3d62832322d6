//! Reads a container's log, also while it is written.

use logs::{LogMessage, OutputStream, ReadOptions, Reader, Tail};
use objects::Timestamp;

use crate::engine::Engine;
use crate::error::EngineError;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogsOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries at or before this time.
    pub until: Option<Timestamp>,
    /// How much of what is there.
    pub tail: Tail,
}

/// A stream of log entries.
pub struct LogStream {
    /// Whether the container has a terminal: its log is one raw stream then.
    pub tty: bool,
    reader: Reader,
    stdout: bool,
    stderr: bool,
}

impl LogStream {
    /// The next entry; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<LogMessage>, EngineError> {
        loop {
            let message = self.reader.next().await.map_err(|error| EngineError::Logs(Box::new(error)))?;
            let Some(message) = message else { return Ok(None) };
            let is_wanted = match message.stream {
                OutputStream::Stdout => self.stdout,
                OutputStream::Stderr => self.stderr,
            };
            if is_wanted {
                return Ok(Some(message));
            }
        }
    }
}

impl Engine {
    /// Reads a container's log.
    pub async fn logs(&self, container: &str, options: LogsOptions) -> Result<LogStream, EngineError> {
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("You must choose at least one stream"));
        }
        let container = self.inner.registry.find(container)?;
        let (tty, driver, running) = {
            let live = container.live();
            let config = &live.record;
            (config.config.tty, config.host_config.log_config.driver.clone(), live.running.clone())
        };
        if driver != "json-file" {
            return Err(EngineError::LogsUnreadable);
        }
        let follow = options.follow.then_some(()).and(running).map(|running| running.ended.subscribe());
        let read = ReadOptions { tail: options.tail, since: options.since, until: options.until, follow };
        let path = self.inner.roots.log(&container.id);
        let reader = Reader::open(&path, read).await.map_err(|error| EngineError::Logs(Box::new(error)))?;
        Ok(LogStream { tty, reader, stdout: options.stdout, stderr: options.stderr })
    }
}
