//! The network against a real kernel, in network namespaces of its own. Needs root.
#![allow(unsafe_code, reason = "a thread enters a namespace of its own")]
#![allow(missing_docs, reason = "a test is not a library")]

#[cfg(test)]
mod bridges;
#[cfg(test)]
mod encryption;
mod mesh;
#[cfg(test)]
mod names;
#[cfg(test)]
mod overlay;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod published6;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod swarm;
#[cfg(test)]
mod vips;
#[cfg(test)]
mod world;
