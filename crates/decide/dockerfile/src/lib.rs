//! Reads Dockerfiles: text in, stages and instructions out, with Docker's words for what is wrong.
//!
//! ```text
//!  text ─► lines (comments, continuations, directives) ─► words (per instruction) ─► instruction (typed) ─► stages
//!                                                          expand: $NAME and quotes, when an instruction is carried out
//!                                                          ignore: patterns of .dockerignore and of COPY
//! ```
//!
//! Never reads a file, never panics whatever the text is, and never carries anything out.
//! Source: buildkit, `frontend/dockerfile/{parser,instructions,shell}`, as dockerd's own builder uses them.

mod expand;
mod glob;
mod ignore;
mod instruction;
mod lines;
mod stages;
mod words;

pub use expand::{ExpandError, expand, expand_words};
pub use glob::{BadPattern, Glob};
pub use ignore::Ignore;
pub use instruction::{Command, CommandLine, Copy, Instruction};
pub use stages::{Dockerfile, Stage, parse, parse_command};

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A line cannot be taken apart.
    #[error("{0}")]
    Syntax(String),
    /// An instruction makes no sense.
    #[error("dockerfile parse error on line {line}: {because}")]
    Instruction {
        /// Its first line, from 1.
        line: usize,
        /// In Docker's words.
        because: String,
    },
}
