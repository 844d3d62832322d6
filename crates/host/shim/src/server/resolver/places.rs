//! The two network namespaces a resolver has to do with: its container's and the machine's.
//!
//! In: a process of the container. Out: sockets made in the one or the other. A socket stays where it was made; the shim
//! itself is in the machine's namespace whenever it does anything else.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[derive(Debug)]
pub(super) struct Places {
    machine: File,
    container: File,
}

impl Places {
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            machine: File::open("/proc/self/ns/net")?,
            container: File::open(format!("/proc/{pid}/ns/net"))?,
        })
    }

    /// Runs `job` in the container's network namespace.
    pub(super) fn inside<T>(&self, job: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        enter(&self.container)?;
        let done = job();
        enter(&self.machine)?;
        done
    }
}

/// This process has one thread: the namespace is the whole shim's.
fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}
