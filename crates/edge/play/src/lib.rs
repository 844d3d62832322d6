//! `skep play`: a swarm of several machines on this one, to try things out, to show them, and to test them.
//!
//! In: arguments. Out: machines in namespaces ([`machine`]), made one swarm through the API of their daemons; text on
//! stdout, errors on stderr, an exit code. It knows nothing of a swarm that a user of the API does not.
//!
//! ```text
//! skep play ─► start: network, machines, `swarm init`, `swarm join` ─► /var/lib/skep-play/NAME
//! skep play VERB NODE… ─► verbs: exec, stop, start, kill, cut, heal, ls, rm
//! ```

mod flags;
mod list;
mod start;
mod state;
mod verbs;

pub use flags::PlayFlags;

use cli::{CliError, output};
use machine::MachineError;

/// Runs `skep play …`; the exit code of the process. To be called before any thread is started: `exec` enters a machine.
#[must_use]
pub fn run(flags: PlayFlags) -> i32 {
    match verbs::run(flags) {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("skep play: {}", error.message));
            error.code
        }
    }
}

/// An error of a machine with its causes.
fn failed(error: &MachineError) -> CliError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    CliError::new(text)
}
