//! Waits for many descriptors at once.
//!
//! In: descriptors, each under a token. Out: which of them are ready. Level-triggered: what isn't handled comes again.
//! Never owns a descriptor besides its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Events taken at once. Chosen: a shim seldom has more descriptors.
const BATCH: usize = 16;

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    Both,
}

/// One ready descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) can_read: bool,
    pub(crate) can_write: bool,
    /// The other side is gone altogether.
    pub(crate) is_hung_up: bool,
}

pub(crate) struct Poll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, EventData::new_u64(token), flags(interest))?)
    }

    pub(crate) fn change(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, source, EventData::new_u64(token), flags(interest))?)
    }

    /// Needed only for a descriptor that stays open: a closed one leaves by itself.
    pub(crate) fn remove(&self, source: impl AsFd) {
        // It fails only when the descriptor isn't there, which is what is wanted.
        let _ = epoll::delete(&self.fd, source);
    }

    /// Waits until something is ready or `timeout` is over; then returns nothing.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + use<>> {
        let timeout = timeout.map(|span| span.try_into().expect("timeouts here are a few seconds"));
        self.events.clear();
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut found = [None; BATCH];
        for (place, event) in found.iter_mut().zip(&self.events) {
            *place = Some(ready(event));
        }
        Ok(found.into_iter().flatten())
    }
}

/// Readable while anything is ready, so that one can wait for another.
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN,
        Interest::Write => EventFlags::OUT,
        Interest::Both => EventFlags::IN | EventFlags::OUT,
    }
}

fn ready(event: &Event) -> Ready {
    let (flags, data) = (event.flags, event.data);
    let is_hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
    Ready {
        token: data.u64(),
        can_read: is_hung_up || flags.contains(EventFlags::IN),
        can_write: is_hung_up || flags.contains(EventFlags::OUT),
        is_hung_up,
    }
}
