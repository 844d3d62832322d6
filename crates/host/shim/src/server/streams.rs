//! The shim's ends of its process's standard streams.
//!
//! In: what `runtime` made. Out: output bytes, and input taken as far as there is room. Never blocks. A stream that breaks is
//! one that has ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use logs::OutputStream;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::Winsize;

use super::poll::{Interest, Poll};

/// Tokens of the streams in [`Poll`].
pub(crate) const STDOUT: u64 = 3;
/// As [`STDOUT`].
pub(crate) const STDERR: u64 = 4;
/// As [`STDOUT`].
pub(crate) const STDIN: u64 = 5;

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing ever again; the stream is closed.
    End,
}

/// What came of writing input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// So many bytes were taken.
    Taken(usize),
    /// The process must read first.
    Full,
    /// Nobody reads it any more.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Streams {
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
    pub(crate) is_terminal: bool,
    /// Whether outputs are waited for.
    listens: bool,
    /// Whether room for input is waited for.
    waits_for_room: bool,
}

impl Streams {
    pub(crate) fn new(stdio: runtime::Stdio) -> io::Result<Self> {
        let (outputs, input, is_terminal) = match stdio {
            runtime::Stdio::Pipes { stdin, stdout, stderr } => ([Some(stdout), Some(stderr)], stdin, false),
            runtime::Stdio::Terminal { master } => {
                // A second descriptor of the same terminal, so that each direction is waited for on its own.
                let input = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
                ([Some(master), None], Some(input), true)
            }
        };
        for fd in outputs.iter().chain([&input]).flatten() {
            rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { outputs, input, is_terminal, listens: false, waits_for_room: false })
    }

    /// Whether both outputs have ended.
    pub(crate) fn are_done(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Begins or stops to wait for output. Stopping takes the descriptors out altogether: a hang-up would be told again
    /// and again otherwise.
    pub(crate) fn listen(&mut self, poll: &Poll, listens: bool) -> io::Result<()> {
        if self.listens == listens {
            return Ok(());
        }
        self.listens = listens;
        for (output, token) in self.outputs.iter().zip([STDOUT, STDERR]) {
            match output {
                Some(fd) if listens => poll.add(fd, token, Interest::Read)?,
                Some(fd) => poll.remove(fd),
                None => {}
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, stream: OutputStream, buffer: &mut [u8]) -> ReadOutcome {
        let Some(fd) = &self.outputs[stream as usize] else { return ReadOutcome::End };
        match rustix::io::read(fd, buffer) {
            Ok(0) => {}
            Ok(count) => return ReadOutcome::Bytes(count),
            Err(Errno::WOULDBLOCK | Errno::INTR) => return ReadOutcome::Nothing,
            // A terminal answers EIO once nobody has it open any more.
            Err(_) => {}
        }
        self.outputs[stream as usize] = None;
        self.close_terminal_input();
        ReadOutcome::End
    }

    /// Ends both outputs, whoever may still hold them.
    pub(crate) fn close_outputs(&mut self) {
        self.outputs = [None, None];
        self.close_terminal_input();
    }

    /// A terminal is closed only with its last descriptor, and would be reported as ready until then.
    fn close_terminal_input(&mut self) {
        if self.is_terminal {
            self.input = None;
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> WriteOutcome {
        let Some(fd) = &self.input else { return WriteOutcome::Closed };
        match rustix::io::write(fd, bytes) {
            Ok(count) => WriteOutcome::Taken(count),
            Err(Errno::WOULDBLOCK | Errno::INTR) => WriteOutcome::Full,
            Err(_) if self.is_terminal => WriteOutcome::Closed,
            Err(_) => {
                self.input = None;
                WriteOutcome::Closed
            }
        }
    }

    /// Waits, or stops waiting, until input can be written again.
    pub(crate) fn wait_for_room(&mut self, poll: &Poll, waits: bool) -> io::Result<()> {
        let Some(fd) = &self.input else { return Ok(()) };
        if self.waits_for_room == waits {
            return Ok(());
        }
        self.waits_for_room = waits;
        if waits {
            poll.add(fd, STDIN, Interest::Write)
        } else {
            poll.remove(fd);
            Ok(())
        }
    }

    /// Closes standard input: the process reads its end.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Sets the size of the terminal; false without one.
    pub(crate) fn resize(&self, rows: u16, cols: u16) -> io::Result<bool> {
        let Some(master) = self.outputs[0].as_ref().filter(|_| self.is_terminal) else { return Ok(false) };
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.as_fd(), size)?;
        Ok(true)
    }
}
