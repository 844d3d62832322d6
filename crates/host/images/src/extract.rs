//! Unpacks an archive over a folder of a container, as `docker cp` does.
//!
//! In: the root of a container's files, which the container may be changing, a folder in it, an archive that may be
//! made to harm. Out: the files. Names and links in the archive, and links that are there, lead nowhere but into that
//! root.

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::codec;
use crate::errors::LayerError;
use crate::place::{Root, file_error};
use crate::unpack::{Rules, normal, unpack_by};

/// How an archive is put over what is there.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Refuses to replace a folder by something else, and the other way round.
    pub keeps_kinds: bool,
    /// User and group of everything that is made; `None` takes the archive's.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks `input` (plain, gzip or zstd) to the folder at `path` below `root`. Blocks. What was unpacked before an
/// error stays.
///
/// # Errors
/// When the archive is damaged, an entry leads out of the folder, or a file can't be made.
pub fn extract(
    input: impl Read,
    root: BorrowedFd<'_>,
    path: &[u8],
    options: &ExtractOptions,
) -> Result<(), LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd =
        rustix::fs::openat(root, ".", flags, Mode::empty()).map_err(|e| file_error("open", "/", e))?;
    let base = normal(path)
        .map_err(|because| LayerError::Entry { path: String::from_utf8_lossy(path).into_owned(), because })?;
    let rules = Rules::Over { base, may_change_kind: !options.keeps_kinds, owner: options.owner };
    let (_, plain) = codec::decode(input).map_err(LayerError::Archive)?;
    unpack_by(&rules, Root::of(root), plain).map(drop)
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
