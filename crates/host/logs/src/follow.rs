//! Tells when a log's directory changes.
//!
//! In: the directory. Out: a wake-up after a write, a new file or a rename in it. Where the kernel has no watches left
//! (128 per user by default), it wakes up on a timer instead, so that following never fails. Never reads a log.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// How often a log is looked at without a watch. Chosen: a person doesn't notice it, and the cost is one `read`.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Changes of a log's directory.
#[derive(Debug)]
pub(crate) enum Changes {
    Watched(AsyncFd<OwnedFd>),
    Polled,
}

impl Changes {
    /// Begins to watch; what happens from now on wakes [`Changes::next`].
    pub(crate) fn watch(dir: &Path) -> io::Result<Self> {
        match open(dir) {
            Ok(fd) => register(fd).map(Self::Watched),
            Err(Errno::MFILE | Errno::NOSPC | Errno::NOSYS) => Ok(Self::Polled),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for a change since the last call returned. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        let Self::Watched(fd) = self else {
            tokio::time::sleep(POLL_INTERVAL).await;
            return Ok(());
        };
        loop {
            let mut ready = fd.readable().await?;
            if drain(ready.get_inner())? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

#[expect(deprecated, reason = "its successor is unsafe; an `OwnedFd` keeps what that asks for")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn open(dir: &Path) -> Result<OwnedFd, Errno> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, dir, changes)?;
    Ok(fd)
}

/// Takes all events at hand; false when there was none. What happened doesn't matter: the files tell.
fn drain(fd: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut any = false;
    loop {
        let (events, _) = match rustix::io::read(fd, &mut buffer) {
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => return Ok(any),
            Err(errno) => return Err(errno.into()),
        };
        if events.is_empty() {
            return Ok(any);
        }
        any = true;
    }
}
