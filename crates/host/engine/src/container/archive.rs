//! Copies files out of a container and into it, as `docker cp` does.
//!
//! In: a container and a path in it; an archive. Out: what is at the path, as attributes or as an archive that is read
//! as fast as the client takes it. Paths are looked up inside the container's root, where no link leads out of.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use docker::PathStat;
use docker::archive::{GO_DIRECTORY, GO_SYMLINK, go_mode};
use futures_util::{Stream, StreamExt};
use images::{ExtractOptions, TarStream, What};
use objects::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::Container;
use super::files::{self, Sight};
use super::record::Record;
use crate::engine::{Engine, Inner};
use crate::error::EngineError;

/// Bytes that are handed on at once. Chosen: one read of a client, as large as a pipe.
const PIECE: usize = 64 * 1024;
/// Pieces under way between thread and client. Chosen: enough that neither waits for each single one.
const PIECES: usize = 8;

/// How an archive is put into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// Refuses to replace a folder by something else, and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Gives everything to the container's user instead of the archive's.
    pub copy_uid_gid: bool,
}

/// An archive while it is made. One that ends without its end mark, in the middle of a block, has failed: the thread
/// that makes it has no other way to say so once the first byte was sent.
pub struct Streamed {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
}

impl Stream for Streamed {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.pieces.poll_recv(cx),
        }
    }
}

impl Engine {
    /// What is at `path` of a container; a link at its end isn't followed.
    pub async fn path_stat(&self, container: &str, path: &str) -> Result<PathStat, EngineError> {
        let found = self.inner.registry.find(container)?;
        files::check_present(&found)?;
        let wanted = Wanted::new(path);
        let missing = missing(container, path);
        let (engine, inner) = (self.clone(), Arc::clone(&self.inner));
        let stat = engine
            .to_the_end(async move {
                files::lend(&inner, &found, Sight::Everything, move |root| stat(root, &wanted)).await
            })
            .await?;
        stat.map_err(missing)
    }

    /// What is at `path` of a container, as an archive; a link at its end isn't followed.
    pub async fn archive(&self, container: &str, path: &str) -> Result<(PathStat, Streamed), EngineError> {
        let found = self.inner.registry.find(container)?;
        files::check_present(&found)?;
        let wanted = Wanted::new(path);
        let missing = missing(container, path);
        let (sender, answer) = oneshot::channel();
        let event = Arc::clone(&found);
        let streamed = stream(&self.inner, &found, Sight::Everything, move |root, out| {
            let opened = stat(root, &wanted).and_then(|stat| Ok((open_source(root, &wanted, &stat)?, stat)));
            match opened {
                Err(errno) => drop(sender.send(Err(missing(errno)))),
                Ok((source, stat)) => {
                    // A client that is gone takes nothing either.
                    let _ = sender.send(Ok(stat));
                    source.pack(out)?;
                }
            }
            Ok(())
        })?;
        let stat = match answer.await {
            Ok(stat) => stat?,
            // The thread ended before it looked: it says why.
            Err(_) => return Err(streamed.failure().await),
        };
        self.inner.events.container(&event, "archive-path", &[]);
        Ok((stat, streamed.pieces()))
    }

    /// Unpacks an archive (plain, gzip or zstd) in the folder at `path` of a container; a link there is followed.
    /// What was unpacked before an error stays.
    pub async fn put_archive(
        &self,
        container: &str,
        path: &str,
        options: PutOptions,
        archive: TarStream,
    ) -> Result<(), EngineError> {
        let found = self.inner.registry.find(container)?;
        files::check_present(&found)?;
        let record = found.record();
        let (path, missing) = (path.to_owned(), missing(container, path));
        let (sender, pieces) = mpsc::channel(PIECES);
        let (inner, event) = (Arc::clone(&self.inner), Arc::clone(&found));
        let work = self.to_the_end(async move {
            let unpack =
                move |root: BorrowedFd<'_>| put(root, &record, &path, options, Incoming::new(pieces));
            files::lend(&inner, &found, Sight::Everything, unpack).await
        });
        let ((), done) = tokio::join!(self.feed(archive, sender), work);
        done?.map_err(|error| match error {
            PutError::Missing(errno) => missing(errno),
            PutError::Refused(error) => error,
        })?;
        self.inner.events.container(&event, "extract-to-dir", &[]);
        Ok(())
    }

    /// Hands a stream on to a thread until its end, its failure, or the engine's.
    async fn feed(&self, mut stream: TarStream, sender: mpsc::Sender<io::Result<Option<Bytes>>>) {
        let feed = async {
            loop {
                let item = stream.next().await.transpose();
                let is_last = !matches!(item, Ok(Some(_)));
                // A closed channel means that the thread has seen enough, or failed: its result says which.
                if sender.send(item).await.is_err() || is_last {
                    return;
                }
            }
        };
        self.inner.shutdown.run_until_cancelled(feed).await;
    }
}

/// The error for what the kernel says of a path.
fn missing(container: &str, path: &str) -> impl FnOnce(Errno) -> EngineError + Send + 'static {
    let (container, path) = (container.to_owned(), path.to_owned());
    move |errno| match errno {
        Errno::NOENT => EngineError::NoSuchFile { path, container },
        // Source: moby, `daemon/archive_unix.go`, `errExtractPointNotDirectory`, and Go's `lstat`.
        Errno::NOTDIR => EngineError::invalid(format!("lstat {path}: not a directory")),
        errno => EngineError::File { what: "look at", path: path.into(), source: errno.into() },
    }
}

/// A path of a container as clients write it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Absolute, without `.`, `..` and doubled slashes.
    path: PathBuf,
    /// Whether it ends with `/` or `/.`: then a link at its end is followed, and must lead to a folder.
    must_be_folder: bool,
    /// Whether it ends with `/.`: then the folder is called `.` in the archive.
    ends_with_dot: bool,
}

impl Wanted {
    /// Source: moby, `archive.PreserveTrailingDotOrSeparator` over Go's `filepath.Join("/", path)`.
    fn new(path: &str) -> Wanted {
        let mut clean = PathBuf::from("/");
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        let ends_with_dot = path == "." || path.ends_with("/.");
        Wanted { path: clean, must_be_folder: ends_with_dot || path.ends_with('/'), ends_with_dot }
    }

    /// What the folder or file is called, as Go's `filepath.Base`.
    fn base(&self) -> &[u8] {
        match self.path.file_name() {
            _ if self.ends_with_dot => b".",
            Some(name) => name.as_bytes(),
            None => b"/",
        }
    }
}

/// Opens a path below `root` as a mere reference; no link leads out of it.
fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel asks to try again when something moved during the look-up.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn stat(root: BorrowedFd<'_>, wanted: &Wanted) -> Result<PathStat, Errno> {
    let last = if wanted.must_be_folder { OFlags::DIRECTORY } else { OFlags::NOFOLLOW };
    let found = open(root, &wanted.path, last)?;
    let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
    let mode = go_mode(stat.st_mode);
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    Ok(PathStat {
        name: String::from_utf8_lossy(wanted.base()).into_owned(),
        size: stat.st_size,
        mode,
        mtime: Timestamp(i64::try_from(nanos).unwrap_or(0)),
        link_target: match mode & GO_SYMLINK {
            0 => String::new(),
            _ => link_target(root, &wanted.path, &found).to_string_lossy().into_owned(),
        },
    })
}

/// Where a link ends: the real path of what it leads to, or what it says if there is nothing.
fn link_target(root: BorrowedFd<'_>, path: &Path, link: &OwnedFd) -> PathBuf {
    if let Some(real) = open(root, path, OFlags::empty()).ok().and_then(|end| real_path(root, &end)) {
        return real;
    }
    let text = rustix::fs::readlinkat(link, "", Vec::new()).unwrap_or_default();
    let text = Path::new(OsStr::from_bytes(text.to_bytes()));
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = open(root, parent, OFlags::empty()).ok().and_then(|end| real_path(root, &end));
    let whole = parent.unwrap_or_else(|| "/".into()).join(text);
    Wanted::new(&whole.to_string_lossy()).path
}

/// The path of something below `root`, as the container would write it.
fn real_path(root: BorrowedFd<'_>, end: &OwnedFd) -> Option<PathBuf> {
    let path = |number: i32| std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let below = path(end.as_raw_fd())?.strip_prefix(path(root.as_raw_fd())?).ok()?.to_owned();
    Some(Path::new("/").join(below))
}

/// What an archive is made of.
struct Source {
    folder: OwnedFd,
    /// `None`: the folder itself, which is called `base`.
    name: Option<Vec<u8>>,
    base: Vec<u8>,
}

/// Source: moby, `daemon/archive_unix.go`, `containerArchivePath`.
fn open_source(root: BorrowedFd<'_>, wanted: &Wanted, stat: &PathStat) -> Result<Source, Errno> {
    let base = wanted.base().to_vec();
    if stat.mode & GO_DIRECTORY != 0 {
        return Ok(Source { folder: open(root, &wanted.path, OFlags::DIRECTORY)?, name: None, base });
    }
    let parent = wanted.path.parent().unwrap_or(Path::new("/"));
    Ok(Source { folder: open(root, parent, OFlags::DIRECTORY)?, name: Some(base.clone()), base })
}

impl Source {
    fn pack(&self, out: &mut Outgoing) -> Result<(), images::PackError> {
        use std::os::fd::AsFd;
        let what = self.name.as_deref().map_or(What::Tree(&self.base), What::One);
        images::pack(self.folder.as_fd(), what, &|_| false, out)
    }
}

/// Why an archive was not put.
enum PutError {
    Missing(Errno),
    Refused(EngineError),
}

/// Source: moby, `daemon/archive_unix.go`, `containerExtractToDir`.
fn put(
    root: BorrowedFd<'_>,
    record: &Record,
    path: &str,
    options: PutOptions,
    archive: Incoming,
) -> Result<(), PutError> {
    let refused = |text: &str| PutError::Refused(EngineError::invalid(text));
    let wanted = Wanted::new(path);
    let folder = open(root, &wanted.path, OFlags::empty()).map_err(PutError::Missing)?;
    let stat = rustix::fs::statat(&folder, "", AtFlags::EMPTY_PATH).map_err(PutError::Missing)?;
    if go_mode(stat.st_mode) & GO_DIRECTORY == 0 {
        return Err(refused("extraction point is not a directory"));
    }
    let real = real_path(root, &folder).unwrap_or_else(|| wanted.path.clone());
    let mount = record.mounts.iter().filter(|mount| real.starts_with(&mount.destination));
    match mount.max_by_key(|mount| mount.destination.len()) {
        Some(mount) if !mount.writable => return Err(refused("mounted volume is marked read-only")),
        None if record.host_config.readonly_rootfs => {
            return Err(refused("container rootfs is marked read-only"));
        }
        _ => {}
    }
    let owner = match options.copy_uid_gid && !record.config.user.is_empty() {
        true => Some(user_ids(root, &record.config.user).map_err(PutError::Refused)?),
        false => None,
    };
    let how = ExtractOptions { keeps_kinds: options.no_overwrite_dir_non_dir, owner };
    let done = images::extract(archive, root, real.as_os_str().as_bytes(), &how);
    done.map_err(|error| PutError::Refused(EngineError::Extract(error)))
}

/// User and group of `user[:group]`, by the container's files.
fn user_ids(root: BorrowedFd<'_>, user: &str) -> Result<(u32, u32), EngineError> {
    // What can't be read names nobody.
    let read = |path: &str| read_small(root, Path::new(path)).unwrap_or_default();
    let found = runtime::user::resolve(user, &[], &read("/etc/passwd"), &read("/etc/group"));
    let found = found.map_err(|error| EngineError::invalid(error.to_string()))?;
    Ok((found.uid, found.gid))
}

/// The text of a regular file of the container; nothing else is opened.
fn read_small(root: BorrowedFd<'_>, path: &Path) -> io::Result<String> {
    /// Chosen: far more than any passwd file.
    const MOST: u64 = 1 << 20;
    let found = open(root, path, OFlags::empty())?;
    let stat = rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

/// The writing side of a stream of pieces.
pub(crate) struct Outgoing {
    pieces: mpsc::Sender<Bytes>,
    filled: Vec<u8>,
}

impl Outgoing {
    fn send(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.filled, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled.len() + bytes.len() > PIECE {
            self.send()?;
        }
        self.filled.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// The reading side of a stream of pieces, of which `None` is the end.
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Option<Bytes>>>,
    current: Bytes,
    has_ended: bool,
}

impl Incoming {
    fn new(pieces: mpsc::Receiver<io::Result<Option<Bytes>>>) -> Incoming {
        Incoming { pieces, current: Bytes::new(), has_ended: false }
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.has_ended {
            match self.pieces.blocking_recv() {
                Some(Ok(Some(piece))) => self.current = piece,
                Some(Ok(None)) => self.has_ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")),
            }
        }
        let count = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

/// Two ends of a stream of pieces. The writing one is for a thread.
pub(crate) fn outgoing() -> (Outgoing, Streamed) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (Outgoing { pieces: sender, filled: Vec::new() }, Streamed { first: None, pieces })
}

/// A stream under way, and its end.
pub(crate) struct UnderWay {
    pieces: mpsc::Receiver<Bytes>,
    failure: oneshot::Receiver<EngineError>,
}

impl UnderWay {
    /// Why it failed before anything was sent.
    pub(crate) async fn failure(self) -> EngineError {
        self.failure.await.unwrap_or(EngineError::ShuttingDown)
    }

    /// Its pieces. A failure from here on cuts them short.
    pub(crate) fn pieces(self) -> Streamed {
        Streamed { first: None, pieces: self.pieces }
    }

    /// Its pieces, unless it fails before the first is sent.
    pub(crate) async fn started(mut self) -> Result<Streamed, EngineError> {
        let first = self.pieces.recv().await;
        match self.failure.try_recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(Streamed { first, pieces: self.pieces }),
        }
    }
}

/// Begins to write an archive of a container's files. Whoever drops the stream ends the work.
pub(crate) fn stream<F>(
    inner: &Arc<Inner>,
    container: &Arc<Container>,
    sight: Sight,
    write: F,
) -> Result<UnderWay, EngineError>
where
    F: FnOnce(BorrowedFd<'_>, &mut Outgoing) -> Result<(), images::PackError> + Send + 'static,
{
    if inner.shutdown.is_cancelled() {
        return Err(EngineError::ShuttingDown);
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    let (failed, failure) = oneshot::channel();
    let (engine, container, tasks) = (Arc::clone(inner), Arc::clone(container), inner.tasks.clone());
    tasks.spawn(async move {
        let cut = sender.clone();
        let pack = move |root: BorrowedFd<'_>| write(root, &mut Outgoing { pieces: sender, filled: Vec::new() });
        let error = match files::lend(&engine, &container, sight, pack).await {
            Ok(Ok(())) | Ok(Err(images::PackError::Write(_))) => return,
            Ok(Err(images::PackError::File(error))) => EngineError::Images(Box::new(error)),
            Err(error) => error,
        };
        tracing::warn!(container.id = %container.id, error = &error as &dyn std::error::Error, "archive cut short");
        // Less than a block: whoever reads the archive then knows that it is not whole.
        // A client that is gone reads neither.
        let _ = failed.send(error);
        let _ = cut.send(Bytes::from_static(b"cut")).await;
    });
    Ok(UnderWay { pieces, failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_clients_write_them() {
        let check = |text: &str, path: &str, must_be_folder: bool, base: &str| {
            let wanted = Wanted::new(text);
            assert_eq!(
                (wanted.path.to_str().unwrap(), wanted.must_be_folder),
                (path, must_be_folder),
                "{text}"
            );
            assert_eq!(wanted.base(), base.as_bytes(), "{text}");
        };
        check("/a/b", "/a/b", false, "b");
        check("a//b/", "/a/b", true, "b");
        check("/a/.", "/a", true, ".");
        check("/", "/", true, "/");
        check(".", "/", true, ".");
        check("/../../etc/../x", "/x", false, "x");
        check("/a/..", "/", false, "/");
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error_and_no_end() {
        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Ok(Some(Bytes::from_static(b"ab")))).unwrap();
        drop(sender);
        let mut out = Vec::new();
        assert!(Incoming::new(pieces).read_to_end(&mut out).is_err());
        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Ok(Some(Bytes::from_static(b"ab")))).unwrap();
        sender.try_send(Ok(None)).unwrap();
        let mut out = Vec::new();
        Incoming::new(pieces).read_to_end(&mut out).unwrap();
        assert_eq!(out, b"ab");
    }
}
