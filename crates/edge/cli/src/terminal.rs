//! The user's terminal: raw mode for as long as a container has it, and its size.
//!
//! Raw mode is undone when the guard is dropped, whatever happens in between.

use rustix::termios::{self, OptionalActions, Termios};
use std::io::{IsTerminal as _, stdin, stdout};

/// The terminal's settings before raw mode; dropping it puts them back.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Puts stdin into raw mode, if it is a terminal.
    pub(crate) fn enter() -> Option<RawMode> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(RawMode(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is no one to tell: the terminal went away.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Rows and columns of stdout, if it is a terminal with a size.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    stdin().is_terminal()
}
