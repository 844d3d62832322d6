//! Folders for the files of a build: an unpacked context, and what an address gives.
//!
//! In: archives as they stream in, addresses. Out: folders in `tmp/` that go when nobody needs them, also after a crash.
//! Never decides what of them becomes part of an image.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, LAST_MODIFIED};
use tokio::io::AsyncWriteExt;

use crate::codec;
use crate::disk::Temp;
use crate::errors::{FetchError, FileError, LayerError, PullError};
use crate::ids::{Digest, Hasher};
use crate::options::TarStream;
use crate::shelf::Shelf;
use crate::spool::read_in_thread;
use crate::unpack::unpack;

/// Chosen: a host that does not answer for this long will not answer soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Chosen: a transfer that stands still for this long is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The name of what is fetched, in its folder.
const FETCHED: &str = "fetched";

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: Temp,
}

/// What an address gave.
#[derive(Debug)]
pub struct Fetched {
    /// Holds the file.
    scratch: Scratch,
    /// The file's name, by the address or the answer; `None` when neither says one.
    pub name: Option<String>,
    /// What the answer says it is; empty when it does not.
    pub content_type: String,
    /// When it was changed, in seconds since 1970; 0 when the answer does not say.
    pub modified: i64,
}

impl Fetched {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join(FETCHED)
    }
}

impl Scratch {
    pub(crate) fn new(shelf: &Shelf) -> Result<Scratch, FileError> {
        Ok(Scratch { folder: shelf.disk.temp_folder("build")? })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file at its top, whose name has no slash.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        let path = self.path().join(name);
        std::fs::write(&path, content).map_err(FileError::at("write", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .map_err(FileError::at("chmod", &path))
    }
}

/// See [`crate::Store::unpack`].
pub(crate) async fn unpack_stream(shelf: &Arc<Shelf>, archive: TarStream) -> Result<Scratch, LayerError> {
    let scratch = Scratch::new(shelf)?;
    let unpacked = read_in_thread(archive, move |reader| {
        let (_, plain) = codec::decode(reader).map_err(LayerError::Archive)?;
        unpack(plain, scratch.path())?;
        Ok(scratch)
    });
    unpacked.await.ok_or(LayerError::Stopped)?
}

/// See [`crate::Store::unpack_file`].
pub(crate) async fn unpack_file(shelf: &Shelf, path: PathBuf) -> Result<Scratch, LayerError> {
    let scratch = Scratch::new(shelf)?;
    let work = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(&path).map_err(FileError::at("open", &path))?;
        unpack(decompressed(file).map_err(LayerError::Archive)?, scratch.path())?;
        Ok(scratch)
    });
    work.await.map_err(|_| LayerError::Stopped)?
}

/// The content of a file without its compression, if it has one that we know.
///
/// # Errors
/// The reader's own; `InvalidData` for a compression that we cannot undo.
pub fn decompressed<'a>(input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    codec::decode(input).map(|(_, plain)| plain)
}

/// The digest of everything a reader gives.
pub fn digest_of(mut input: impl Read) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// See [`crate::Store::fetch`]. Source: moby, `builder/remotecontext/remote.go`, `GetWithStatusError`.
pub(crate) async fn fetch(shelf: &Arc<Shelf>, url: &str) -> Result<Fetched, FetchError> {
    let failed = |error: reqwest::Error| {
        FetchError::Transport(PullError::Transport {
            method: "Get",
            url: url.to_owned(),
            cause: crate::message(&error),
            is_transient: false,
        })
    };
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
    let answer = client.build().map_err(failed)?.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(FetchError::Status { url: url.to_owned(), status: answer.status().to_string() });
    }
    let header = |name: HeaderName| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let scratch = Scratch::new(shelf)?;
    let fetched = Fetched {
        name: name(answer.url().path(), &header(CONTENT_DISPOSITION)),
        content_type: header(CONTENT_TYPE),
        modified: seconds(&header(LAST_MODIFIED)).unwrap_or_default(),
        scratch,
    };
    let path = fetched.path();
    let file = tokio::fs::File::create(&path).await.map_err(FileError::at("open", &path))?;
    let mut file = tokio::io::BufWriter::new(file);
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece.map_err(failed)?).await.map_err(FileError::at("write", &path))?;
    }
    file.flush().await.map_err(FileError::at("write", &path))?;
    Ok(fetched)
}

/// Source: moby, `builder/dockerfile/copy.go`, `getFilenameForDownload`.
fn name(path: &str, disposition: &str) -> Option<String> {
    let last = |path: &str| path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned);
    let said = || {
        let (_, value) = disposition.split_once("filename=")?;
        last(value.split(';').next()?.trim().trim_matches('"'))
    };
    last(path).or_else(said).filter(|name| name != "." && name != "..")
}

/// `Wed, 21 Oct 2015 07:28:00 GMT` in seconds since 1970. Source: RFC 9110, section 5.6.7, "IMF-fixdate".
fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = date.split_once(", ")?;
    let mut words = date.split([' ', ':']);
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let mut number = || words.next()?.parse::<i64>().ok().filter(|n| (0..10_000).contains(n));
    let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
    // Days since 1970 by years that begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_answers_are_read() {
        for (date, expect) in [
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(1_445_412_480)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 12:00:00 GMT", Some(951_825_600)),
            ("yesterday", None),
        ] {
            assert_eq!(seconds(date), expect, "{date}");
        }
    }

    #[test]
    fn a_file_is_called_as_its_address_or_its_answer_says() {
        for (path, disposition, expect) in [
            ("/a/b.txt", "", Some("b.txt")),
            ("/a/", "attachment; filename=\"../c.txt\"; x=1", Some("c.txt")),
            ("/", "", None),
            ("/..", "", None),
        ] {
            assert_eq!(name(path, disposition).as_deref(), expect, "{path}");
        }
    }
}
