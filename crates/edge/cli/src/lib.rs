//! The command line: a client of the API with Docker's grammar.
//!
//! In: arguments. Out: data on stdout, everything else on stderr, an exit code. It knows only the API: whatever it can
//! do, a script can do with `curl`.
//!
//! ```text
//! arguments ─► commands/<noun>/<verb> ─► client (HTTP) ─► daemon
//!                       └─► output (tables, templates, JSON), progress, stream (attached containers)
//! ```

pub mod client;
pub mod commands;
mod credentials;
pub mod detach;
pub mod grammar;
pub mod output;
pub mod progress;
pub mod stream;
mod terminal;

use client::Client;
use std::fmt;

/// What a command ends with.
pub type Outcome = Result<(), CliError>;

/// Why a command failed, and the exit code that tells it.
#[derive(Debug)]
pub struct CliError {
    /// Shown on stderr; empty when everything was said already.
    pub message: String,
    /// Exit code of the process, 1 to 255.
    pub code: i32,
    /// The daemon's HTTP status, when it was the daemon that refused.
    pub status: Option<u16>,
}

impl CliError {
    /// An error with exit code 1.
    pub fn new(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), code: 1, status: None }
    }

    /// Ends with `code` without a word: a container's own exit code.
    pub fn silent(code: i32) -> CliError {
        CliError { message: String::new(), code, status: None }
    }

    /// The value of a flag could not be read; `flag` as in help: `-m, --memory`.
    #[must_use]
    pub fn for_flag(self, flag: &str, value: &str) -> CliError {
        let hint = grammar::usage_hint();
        let message = format!("invalid argument \"{value}\" for \"{flag}\" flag: {}{hint}", self.message);
        // Source: docker/cli 28.2, observed: wrong flags are exit code 125.
        CliError { message, code: 125, status: None }
    }

    /// A file could not be used, in Go's words: `open /x: no such file or directory`.
    pub fn file(doing: &str, path: &str, error: &std::io::Error) -> CliError {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        CliError::new(format!("{doing} {path}: {text}"))
    }

    /// One error for all, or success when there are none.
    ///
    /// # Errors
    /// When `errors` is not empty.
    pub fn all(errors: Vec<CliError>) -> Outcome {
        let Some(first) = errors.first() else { return Ok(()) };
        let (code, status) = (first.code, first.status);
        let lines: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        Err(CliError { message: lines.join("\n"), code, status })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<template::TemplateError> for CliError {
    fn from(error: template::TemplateError) -> CliError {
        match error {
            template::TemplateError::Parse { .. } => CliError::new(error.to_string()),
            template::TemplateError::Execute { .. } => {
                CliError::new(format!("template parsing error: {error}"))
            }
        }
    }
}

/// Does `act` for each name in turn and goes on after a failure; all failures are reported.
pub(crate) async fn each(names: &[String], act: impl AsyncFn(&String) -> Outcome) -> Outcome {
    let mut failed = Vec::new();
    for name in names {
        if let Err(error) = act(name).await {
            failed.push(error);
        }
    }
    CliError::all(failed)
}

/// Runs `command` against the daemon at `host`; the exit code of the process.
pub fn run(command: commands::Command, host: &str) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("skep: {error}"));
            return 1;
        }
    };
    let outcome = runtime.block_on(async {
        let client = Client::new(host)?;
        command.run(&client).await
    });
    // A read of a terminal cannot be cancelled: don't wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            if !error.message.is_empty() {
                output::note(&error.message);
            }
            error.code
        }
    }
}
