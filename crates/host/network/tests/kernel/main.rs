//! The network against a real kernel, in network namespaces of its own. Needs root.
#![allow(unsafe_code, reason = "a thread enters a namespace of its own")]
#![allow(missing_docs, reason = "a test is not a library")]

#[cfg(test)]
mod publish;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod world;
