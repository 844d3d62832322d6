//! Carries messages between a new process and its creator over one socket.
//!
//! In: a `Failure` or a terminal on the child's side. Out: the same on the parent's, as `StartError`. The socket keeps
//! message borders and closes on `execve`, so that the end of file means success.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::{StartError, Step};
use crate::user::UserError;

/// Longest text in a message. Longer subjects are cut.
/// chosen: longer than the longest path, shorter than any socket buffer.
const MAX_TEXT: usize = 8192;

/// Why the child stops; the part of [`StartError`] that happens there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NotInPath { program: String },
    NoProgram { program: String, errno: Errno },
    NotExecutable { program: String, errno: Errno },
    Exec { path: String, errno: Errno },
    NoUser { user: String },
    NoGroup { group: String },
    IdRange,
    BindSource { path: String, errno: Errno },
    Step { step: Step, subject: String, errno: Errno },
}

/// A message from parent to child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The cgroup is joined and the interfaces are there.
    GoOn,
    /// Execute the program.
    Start,
}

/// A message from child to parent.
pub(crate) enum Report {
    /// All is done but `execve`. With the terminal's controlling side if there is one.
    Ready(Option<OwnedFd>),
    /// The child gave up and ends.
    Failed(StartError),
    /// The child's end is closed: it executes its program, or it died.
    Closed,
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Makes the socket: the parent's end, then the child's.
pub(crate) fn channel() -> Result<(Channel, Channel), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Channel(ours), Channel(theirs)))
}

impl Channel {
    /// Sends an order to the child.
    pub(crate) fn order(&self, order: Order) -> Result<(), Errno> {
        self.send(&[order as u8], None)
    }

    /// Waits for exactly this order; `false` when the parent is gone.
    pub(crate) fn await_order(&self, order: Order) -> bool {
        let mut byte = [0u8; 1];
        loop {
            match rustix::io::read(&self.0, &mut byte) {
                Err(Errno::INTR) => {}
                Ok(1) => return byte[0] == order as u8,
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Tells the parent that all is done.
    pub(crate) fn ready(&self, terminal: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        self.send(&[0], terminal)
    }

    /// Tells the parent why the child gives up. A parent that is gone is no further error.
    pub(crate) fn failed(&self, failure: &Failure) {
        let message = encode(failure);
        let _ = self.send(&message, None);
    }

    /// Waits for the child's next report.
    pub(crate) fn report(&self) -> Result<Report, Errno> {
        let mut bytes = [0u8; MAX_TEXT + 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // A child that ends without reading its orders resets the connection; what it said comes after that.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        let mut terminal = None;
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = part {
                terminal = fds.next();
            }
        }
        match bytes.get(..message.bytes) {
            Some([]) | None => Ok(Report::Closed),
            Some([0]) => Ok(Report::Ready(terminal)),
            Some(other) => decode(other).map(Report::Failed).ok_or(Errno::BADMSG),
        }
    }

    fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds;
        if let Some(fd) = fd {
            fds = [fd];
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            debug_assert!(fits, "the buffer has room for one descriptor");
        }
        loop {
            match sendmsg(self.0.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

/// `[tag, step, errno as 4 bytes, text…]`; tags start at 1.
fn encode(failure: &Failure) -> Vec<u8> {
    let (tag, step, errno, text): (u8, u8, Errno, &str) = match failure {
        Failure::NotInPath { program } => (1, 0, Errno::NOENT, program),
        Failure::NoProgram { program, errno } => (2, 0, *errno, program),
        Failure::NotExecutable { program, errno } => (3, 0, *errno, program),
        Failure::Exec { path, errno } => (4, 0, *errno, path),
        Failure::NoUser { user } => (5, 0, Errno::NOENT, user),
        Failure::NoGroup { group } => (6, 0, Errno::NOENT, group),
        Failure::IdRange => (7, 0, Errno::RANGE, ""),
        Failure::BindSource { path, errno } => (8, 0, *errno, path),
        Failure::Step { step, subject, errno } => (9, *step as u8, *errno, subject),
    };
    let text = text.as_bytes();
    let mut message = vec![tag, step];
    message.extend_from_slice(&errno.raw_os_error().to_le_bytes());
    message.extend_from_slice(&text[..text.len().min(MAX_TEXT)]);
    message
}

fn decode(message: &[u8]) -> Option<StartError> {
    let (head, text) = message.split_at_checked(6)?;
    let errno = i32::from_le_bytes(head.get(2..6)?.try_into().ok()?);
    let text = String::from_utf8_lossy(text).into_owned();
    Some(match head[0] {
        1 => StartError::NotInPath { program: text },
        2 => StartError::NoProgram { program: text, errno },
        3 => StartError::NotExecutable { program: text, errno },
        4 => StartError::Exec { path: text, errno },
        5 => StartError::User(UserError::NoUser { user: text }),
        6 => StartError::User(UserError::NoGroup { group: text }),
        7 => StartError::User(UserError::OutOfRange),
        8 => StartError::BindSource { path: PathBuf::from(text), errno },
        9 => StartError::Step { step: Step::from_number(head[1])?, subject: text, errno },
        _ => return None,
    })
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        match error {
            UserError::NoUser { user } => Self::NoUser { user },
            UserError::NoGroup { group } => Self::NoGroup { group },
            UserError::OutOfRange => Self::IdRange,
        }
    }
}

/// Names the step and its subject where the kernel's answer alone would not say.
pub(crate) trait AtStep<T> {
    /// The failure of `step` on `subject`.
    fn at(self, step: Step, subject: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T> AtStep<T> for Result<T, Errno> {
    fn at(self, step: Step, subject: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Step { step, subject: subject.as_ref().to_owned(), errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_with_its_text() {
        let (ours, theirs) = channel().unwrap();
        theirs.failed(&Failure::NotInPath { program: "foo".into() });
        let Report::Failed(error) = ours.report().unwrap() else { panic!("no failure") };
        assert_eq!(error.to_string(), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(error.exit_code(), 127);
    }

    #[test]
    fn a_failure_arrives_from_a_child_that_reads_no_orders() {
        let (ours, theirs) = channel().unwrap();
        theirs.failed(&Failure::IdRange);
        ours.order(Order::GoOn).unwrap();
        drop(theirs);
        assert!(matches!(ours.report().unwrap(), Report::Failed(StartError::User(UserError::OutOfRange))));
        assert!(matches!(ours.report().unwrap(), Report::Closed));
    }

    #[test]
    fn every_step_keeps_its_name_over_the_socket() {
        for number in 0..=Step::Init as u8 {
            let step = Step::from_number(number).unwrap();
            let failure = Failure::Step { step, subject: "x".into(), errno: Errno::PERM };
            let text = decode(&encode(&failure)).unwrap().to_string();
            assert_eq!(text, format!("{step} `x`: operation not permitted"));
        }
        assert_eq!(Step::from_number(Step::Init as u8 + 1), None);
    }

    #[test]
    fn a_subject_longer_than_a_message_is_cut() {
        let (ours, theirs) = channel().unwrap();
        theirs.failed(&Failure::Exec { path: "p".repeat(3 * MAX_TEXT), errno: Errno::NOEXEC });
        assert!(
            matches!(ours.report().unwrap(), Report::Failed(StartError::Exec { path, .. }) if path.len() == MAX_TEXT)
        );
    }

    #[test]
    fn a_closed_end_is_reported_as_closed() {
        let (ours, theirs) = channel().unwrap();
        drop(theirs);
        assert!(matches!(ours.report().unwrap(), Report::Closed));
    }

    #[test]
    fn a_terminal_travels_with_the_ready_report() {
        let (ours, theirs) = channel().unwrap();
        theirs.ready(Some(theirs.0.as_fd())).unwrap();
        assert!(matches!(ours.report().unwrap(), Report::Ready(Some(_))));
    }

    #[test]
    fn an_order_is_not_taken_for_another() {
        let (ours, theirs) = channel().unwrap();
        ours.order(Order::Start).unwrap();
        assert!(!theirs.await_order(Order::GoOn));
    }
}
