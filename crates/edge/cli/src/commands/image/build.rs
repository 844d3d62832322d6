//! `build`: sends a folder, without what `.dockerignore` leaves out, and shows what the daemon makes of it.
//!
//! In: flags, a folder, `-` or an address. Out: the daemon's lines. The archive is written while it is sent.
//! Source: docker/cli 28, `cli/command/image/build.go` and `build/context.go`.

use super::pull::{self, Place};
use crate::client::{Call, Client};
use crate::output;
use crate::{CliError, Outcome};
use bytes::Bytes;
use clap::Args;
use dockerfile::Ignore;
use futures_util::StreamExt as _;
use images::{ArchiveWriter, Entry, EntryKind, FileKind, Found, View, plain};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Pieces of the archive that may wait for the daemon. chosen: with the pieces' size a few hundred kilobytes.
const PIECES: usize = 4;
const PIECE: usize = 128 * 1024;

/// `build [OPTIONS] PATH | URL | -`
#[derive(Debug, Args)]
pub struct Build {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long)]
    add_host: Vec<String>,
    /// Set build-time variables
    #[arg(long)]
    build_arg: Vec<String>,
    /// Images to consider as cache sources
    #[arg(long)]
    cache_from: Vec<String>,
    /// Set the parent cgroup for the RUN instructions during build
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Name of the Dockerfile (Default is "PATH/Dockerfile")
    #[arg(short, long)]
    file: Option<String>,
    /// Always remove intermediate containers
    #[arg(long)]
    force_rm: bool,
    /// Write the image ID to the file
    #[arg(long)]
    iidfile: Option<String>,
    /// Set metadata for an image
    #[arg(long)]
    label: Vec<String>,
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long)]
    network: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Remove intermediate containers after a successful build
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: bool,
    /// Size of /dev/shm
    #[arg(long)]
    shm_size: Option<String>,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(short, long)]
    tag: Vec<String>,
    /// Set the target build stage to build
    #[arg(long)]
    target: Option<String>,
    /// Folder, address, or - for standard input
    path: String,
}

/// What is sent.
enum Sent {
    /// A folder and the name of the Dockerfile in it; a Dockerfile from elsewhere with its name.
    Folder { folder: PathBuf, dockerfile: String, extra: Option<(String, Vec<u8>)> },
    /// An archive as it is.
    Archive(Vec<u8>),
    /// Only a Dockerfile.
    Text(Vec<u8>),
    /// The daemon fetches it.
    Address(String),
}

impl Build {
    /// Sends the context and shows the build.
    pub async fn run(self, client: &Client) -> Outcome {
        let sent = self.sent()?;
        let mut call = self.options(client.post("/build"))?;
        call = match sent {
            Sent::Address(address) => {
                call.query("remote", address).query_some("dockerfile", self.file.as_ref())
            }
            Sent::Archive(bytes) => {
                call.query_some("dockerfile", self.file.as_ref()).stream("application/x-tar", one(bytes))
            }
            Sent::Text(text) => {
                let name = "Dockerfile".to_owned();
                let writer = move |out: &mut dyn Write| extra_only(&name, &text, out);
                call.stream("application/x-tar", archive(writer, !self.quiet))
            }
            Sent::Folder { folder, dockerfile, extra } => {
                let writer = context(&folder, &dockerfile, extra)?;
                call.query("dockerfile", dockerfile).stream("application/x-tar", archive(writer, !self.quiet))
            }
        };
        let told = pull::follow_build(call.send().await?, Place::Stdout).await?;
        if let (Some(path), Some(id)) = (&self.iidfile, told) {
            std::fs::write(path, id).map_err(|error| CliError::file("write", path, &error))?;
        }
        Ok(())
    }

    fn options<'a>(&self, mut call: Call<'a>) -> Result<Call<'a>, CliError> {
        let bytes = |flag: &str, text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some("-1") => Ok(Some(-1)),
            Some(text) => docker::units::parse_ram(text)
                .map(Some)
                .map_err(|error| CliError::new(error.to_string()).for_flag(flag, text)),
        };
        for tag in &self.tag {
            call = call.query("t", tag);
        }
        for host in &self.add_host {
            call = call.query("extrahosts", host);
        }
        Ok(call
            .header("x-registry-config", crate::credentials::for_build())
            .query("buildargs", arguments(&self.build_arg))
            .query("labels", labels(&self.label))
            .query("cachefrom", serde_json::json!(self.cache_from))
            .query_some("cgroupparent", self.cgroup_parent.as_ref())
            .query_some("cpuperiod", self.cpu_period)
            .query_some("cpuquota", self.cpu_quota)
            .query_some("cpushares", self.cpu_shares)
            .query_some("cpusetcpus", self.cpuset_cpus.as_ref())
            .query_some("cpusetmems", self.cpuset_mems.as_ref())
            .query_some("memory", bytes("-m, --memory", &self.memory)?)
            .query_some("memswap", bytes("--memory-swap", &self.memory_swap)?)
            .query_some("shmsize", bytes("--shm-size", &self.shm_size)?)
            .query_some("networkmode", self.network.as_ref())
            .query_some("platform", self.platform.as_ref())
            .query_some("target", self.target.as_ref())
            .query("rm", if self.rm { "1" } else { "0" })
            .query("version", "1")
            .flag("forcerm", self.force_rm)
            .flag("nocache", self.no_cache)
            .flag("pull", self.pull)
            .flag("q", self.quiet))
    }

    fn sent(&self) -> Result<Sent, CliError> {
        let from_stdin = || {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(|error| CliError::file("read", "stdin", &error))?;
            Ok::<Vec<u8>, CliError>(bytes)
        };
        if self.path == "-" {
            let bytes = from_stdin()?;
            let is_archive = images::decompressed(&bytes[..])
                .and_then(|plain| images::Archive::new(plain).next_entry())
                .is_ok_and(|entry| entry.is_some());
            return Ok(if is_archive { Sent::Archive(bytes) } else { Sent::Text(bytes) });
        }
        if self.path.starts_with("http://")
            || self.path.starts_with("https://")
            || self.path.starts_with("git") && self.path.contains([':', '@'])
        {
            return Ok(Sent::Address(self.path.clone()));
        }
        let folder = PathBuf::from(&self.path);
        if !folder.is_dir() {
            return Err(CliError::new(format!(
                "unable to prepare context: path \"{}\" not found",
                self.path
            )));
        }
        match self.file.as_deref() {
            Some("-") => {
                let (name, bytes) = (format!(".dockerfile.{:x}", std::process::id()), from_stdin()?);
                Ok(Sent::Folder { folder, dockerfile: name.clone(), extra: Some((name, bytes)) })
            }
            file => self.dockerfile(folder, file),
        }
    }

    /// A Dockerfile inside the folder, or one from elsewhere that is sent beside it.
    fn dockerfile(&self, folder: PathBuf, file: Option<&str>) -> Result<Sent, CliError> {
        let path = file.map_or_else(|| folder.join("Dockerfile"), PathBuf::from);
        let missing = |error: io::Error| {
            let shown = CliError::file("lstat", &path.display().to_string(), &error).message;
            CliError::new(format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: {shown}"
            ))
        };
        let (full, root) = match path.canonicalize() {
            Ok(full) => (full, folder.canonicalize().map_err(missing)?),
            // The usual name may be in lower case.
            Err(_) if file.is_none() && folder.join("dockerfile").is_file() => {
                return Ok(Sent::Folder { folder, dockerfile: "dockerfile".to_owned(), extra: None });
            }
            Err(error) => return Err(missing(error)),
        };
        match full.strip_prefix(&root) {
            Ok(inside) => {
                Ok(Sent::Folder { folder, dockerfile: inside.to_string_lossy().into_owned(), extra: None })
            }
            Err(_) => {
                let (name, bytes) =
                    (format!(".dockerfile.{:x}", std::process::id()), std::fs::read(&full).map_err(missing)?);
                Ok(Sent::Folder { folder, dockerfile: name.clone(), extra: Some((name, bytes)) })
            }
        }
    }
}

/// `name=value`; a name alone takes its value from the environment.
fn arguments(given: &[String]) -> serde_json::Value {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.clone(), std::env::var(text).ok()),
    };
    serde_json::json!(given.iter().map(split).collect::<BTreeMap<_, _>>())
}

fn labels(given: &[String]) -> serde_json::Value {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    serde_json::json!(given.iter().map(split).collect::<BTreeMap<_, _>>())
}

fn one(bytes: Vec<u8>) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::once(async { Ok(Bytes::from(bytes)) })
}

/// What is written on a thread of its own, as a stream; at its end the size is told.
fn archive(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    is_told: bool,
) -> futures_util::stream::BoxStream<'static, io::Result<Bytes>> {
    let (sender, mut pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let pieces = Pieces { sender: sender.clone(), size: 0 };
        let mut out = io::BufWriter::with_capacity(PIECE, pieces);
        let written = write(&mut out).and_then(|()| out.flush());
        match written {
            Ok(()) if is_told => {
                let size = docker::units::human_size(out.get_ref().size, 4);
                // Source: docker/cli 28, observed without a terminal.
                output::print(&format!("Sending build context to Docker daemon  {size}\r\r\n"));
            }
            Ok(()) => {}
            // Nobody is left to be told when the request has ended.
            Err(error) => drop(sender.blocking_send(Err(error))),
        }
    });
    futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx)).boxed()
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    size: u64,
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(buf);
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.size += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn extra_only(name: &str, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut writer = ArchiveWriter::new(out);
    extra(&mut writer, name, text)?;
    writer.finish().map(drop)
}

fn extra(writer: &mut ArchiveWriter<&mut dyn Write>, name: &str, text: &[u8]) -> io::Result<()> {
    let entry = Entry {
        kind: EntryKind::File,
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
    };
    writer.file(&entry, text.len() as u64, &mut &text[..])
}

/// A folder to be written: its files, and which of them are left out.
struct Context {
    view: View,
    ignore: Ignore,
    /// Sent whatever the rules say: the daemon needs them.
    kept: Vec<String>,
}

/// What writes a folder's archive.
fn context(
    folder: &Path,
    dockerfile: &str,
    extra_file: Option<(String, Vec<u8>)>,
) -> Result<impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static, CliError> {
    let shown = folder.display().to_string();
    let failed = |error: io::Error| CliError::file("open", &shown, &error);
    // The folder itself may be a link; nothing in it is followed.
    let view = View::open(&[folder.canonicalize().map_err(failed)?]).map_err(failed)?;
    let rules = [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()];
    let rules = rules.iter().find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    let ignore = Ignore::parse(&rules.unwrap_or_default())
        .map_err(|error| CliError::new(format!("error checking context: .dockerignore: {error}")))?;
    let context = Context { view, ignore, kept: vec![dockerfile.to_owned(), ".dockerignore".to_owned()] };
    Ok(move |out: &mut dyn Write| {
        let mut writer = ArchiveWriter::new(out);
        let root = context.view.root()?;
        context.folder(&root, &mut writer)?;
        if let Some((name, text)) = extra_file {
            extra(&mut writer, &name, &text)?;
        }
        writer.finish().map(drop)
    })
}

impl Context {
    fn folder(&self, folder: &Found, out: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()> {
        for name in self.view.names(folder)? {
            let Some(found) = self.view.look(folder, &name)? else { continue };
            let path = String::from_utf8_lossy(&found.path).into_owned();
            let is_kept = self.kept.contains(&path);
            let is_out = !is_kept && self.ignore.leaves_out(&path);
            if !is_out {
                self.entry(&found, out)?;
            }
            let leads_to_kept = || self.kept.iter().any(|kept| kept.starts_with(&format!("{path}/")));
            let may_hold = !is_out || self.ignore.has_exceptions() || leads_to_kept();
            if found.meta.kind == FileKind::Folder && may_hold {
                self.folder(&found, out)?;
            }
        }
        Ok(())
    }

    /// Everything belongs to root: whose it is here means nothing there. Source: docker/cli, `build.go`, `ChownOpts`.
    fn entry(&self, found: &Found, out: &mut ArchiveWriter<&mut dyn Write>) -> io::Result<()> {
        let mut meta = found.meta;
        (meta.uid, meta.gid) = (0, 0);
        let kind = match meta.kind {
            FileKind::File => EntryKind::File,
            FileKind::Folder => EntryKind::Folder,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice => EntryKind::CharDevice,
            FileKind::BlockDevice => EntryKind::BlockDevice,
            FileKind::Socket => return Ok(()),
        };
        let link = if kind == EntryKind::Symlink { self.view.link(found)? } else { Vec::new() };
        let entry =
            Entry { path: found.path.clone(), link, xattrs: self.view.xattrs(found)?, ..plain(kind, &meta) };
        match kind {
            EntryKind::File => out.file(&entry, meta.size, &mut self.view.file(found)?),
            _ => out.entry(&entry),
        }
    }
}
