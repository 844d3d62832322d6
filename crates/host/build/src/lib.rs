//! Builds images from Dockerfiles, as dockerd's own builder does: one image for each instruction.
//!
//! ```text
//!  tar, URL ─► context (a folder) ─► dockerfile::parse ─► stages, one after the other
//!                                                           │ each instruction: made before? else
//!                                        RUN ─► engine: a container, its upper folder ─┐
//!                                 COPY, ADD ─► copy: a tar of what lands where ────────┼─► images: derive
//!                                     others ─► config only ───────────────────────────┘
//! ```
//!
//! In: a context, options. Out: an image, and the lines that the builder of moby prints. What a context, a Dockerfile or
//! a base image says leads nowhere out of its own tree. Never keeps anything but images; a dropped future leaves steps
//! that were finished, and no container.

mod arguments;
mod base;
mod builder;
mod context;
mod copy;
mod error;
mod options;
mod output;
mod run;
mod step;
mod text;

pub use builder::build;
pub use context::Source;
pub use error::BuildError;
pub use options::{BuildOptions, Limits};
pub use output::Output;
