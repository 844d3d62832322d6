//! Machines on this machine: each has network, mount, process, host name and IPC namespaces, an address, a disk and a
//! daemon of its own. For trying a swarm, and for tests of several hosts.
//!
//! ```text
//!  boot ──► `skep machine DIR` (launcher) ── unshare ──► `skep machine-init DIR` (process 1 of the machine)
//!    └── veth: bridge here ◄──► eth0 there                  └── `skep daemon …`
//! ```
//!
//! Killing process 1 ends everything on the machine at once, as a pulled plug does; its folder is the disk that stays.
//! In: a folder and a [`Spec`]. Out: a machine that is on or off. Never touches a machine of another folder.

#![allow(
    unsafe_code,
    reason = "leaving a namespace is unsafe where threads or borrowed files may be left in it"
)]

mod boot;
mod error;
mod files;
mod init;
mod inside;
mod lan;
mod power;
mod process;
mod spec;

pub use boot::main as launcher_main;
pub use error::MachineError;
pub use init::main as init_main;
pub use lan::Lan;
pub use power::{Cut, remove_groups};
pub use spec::{Machine, Spec};
