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

    /// Hides what is typed, if stdin is a terminal; lines are edited as ever.
    pub(crate) fn hide_typing() -> Option<RawMode> {
        let before = termios::tcgetattr(stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(stdin(), OptionalActions::Now, &hidden).ok()?;
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

/// Columns of a terminal; the widest that anybody has when it doesn't tell. Source: moby `jsonmessage.go`.
pub(crate) fn columns(terminal: impl rustix::fd::AsFd) -> u16 {
    termios::tcgetwinsize(terminal).map_or(200, |size| size.ws_col)
}

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    stdin().is_terminal()
}
