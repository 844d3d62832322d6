//! Lists a container's processes as `ps` shows them.
//!
//! In: the container's process ids, and `/proc`. Out: Docker's table. Never runs a program: of `ps`'s formats it knows the
//! default `-ef` and `aux`.

use std::collections::BTreeSet;
use std::fs;

use docker::TopResponse;
use runtime::cgroup::Cgroup;

use super::start;
use crate::engine::{Engine, now};
use crate::error::EngineError;
use crate::files::blocking;

impl Engine {
    /// The processes of a running container. `arguments` is `-ef` (also when empty) or `aux`.
    pub async fn top(&self, container: &str, arguments: &str) -> Result<TopResponse, EngineError> {
        let is_full = match arguments.trim() {
            "" | "-ef" | "ef" => false,
            "aux" | "-aux" => true,
            other => return Err(EngineError::NotSupported(format!("top with ps arguments `{other}`"))),
        };
        let container = self.inner.registry.find(container)?;
        container.running()?;
        let parent = start::cgroup_parent(&self.inner, &container.live().record);
        let name = container.id.clone();
        blocking(move || {
            let pids = Cgroup::open(&parent, &name)
                .and_then(|cgroup| cgroup.pids())
                .map_err(|error| EngineError::Cgroup(Box::new(error)))?;
            let pids: BTreeSet<i32> = pids.into_iter().collect();
            let rows = pids.into_iter().filter_map(Process::read);
            Ok(table(rows, is_full))
        })
        .await
    }
}

struct Process {
    pid: i32,
    parent: i32,
    user: u32,
    terminal: String,
    state: String,
    cpu_seconds: u64,
    started_at: i64,
    virtual_kib: u64,
    resident_kib: u64,
    command: String,
}

impl Process {
    /// `None` when it has ended.
    fn read(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        // Field numbers as in proc(5), minus the three before.
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let ticks = rustix::param::clock_ticks_per_second();
        let since_boot = number(22) / ticks.max(1);
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command = words.join(" ").trim_end().to_owned();
        let metadata = fs::metadata(format!("/proc/{pid}")).ok()?;
        let page_kib = u64::try_from(rustix::param::page_size() / 1024).unwrap_or(4);
        Some(Process {
            pid,
            parent: i32::try_from(number(4)).unwrap_or(0),
            user: std::os::unix::fs::MetadataExt::uid(&metadata),
            terminal: terminal_name(number(7)),
            state: fields.first().copied().unwrap_or("?").to_owned(),
            cpu_seconds: (number(14) + number(15)) / ticks.max(1),
            started_at: boot_time() + i64::try_from(since_boot).unwrap_or(0),
            virtual_kib: number(23) / 1024,
            resident_kib: number(24) * page_kib,
            command: if command.is_empty() { format!("[{name}]") } else { command },
        })
    }
}

fn boot_time() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn terminal_name(device: u64) -> String {
    match (rustix::fs::major(device), rustix::fs::minor(device)) {
        (0, 0) => "?".to_owned(),
        // Source: Linux, `Documentation/admin-guide/devices.txt`: pseudo terminals.
        (major @ 136..=143, minor) => format!("pts/{}", (major - 136) * 256 + minor),
        (_, minor) => format!("tty{minor}"),
    }
}

fn table(rows: impl Iterator<Item = Process>, is_full: bool) -> TopResponse {
    let titles: &[&str] = if is_full {
        &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
    } else {
        &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let processes = rows.map(|row| if is_full { full_row(&row, &users) } else { short_row(&row, &users) });
    TopResponse { processes: processes.collect(), titles: titles.iter().map(|t| (*t).to_owned()).collect() }
}

fn short_row(row: &Process, users: &str) -> Vec<String> {
    vec![
        user_name(row.user, users),
        row.pid.to_string(),
        row.parent.to_string(),
        "0".to_owned(),
        start_text(row.started_at),
        row.terminal.clone(),
        clock(row.cpu_seconds),
        row.command.clone(),
    ]
}

fn full_row(row: &Process, users: &str) -> Vec<String> {
    let elapsed = (now().0 / 1_000_000_000 - row.started_at).max(1);
    let cpu = row.cpu_seconds as f64 * 100.0 / elapsed as f64;
    vec![
        user_name(row.user, users),
        row.pid.to_string(),
        format!("{cpu:.1}"),
        "0.0".to_owned(),
        row.virtual_kib.to_string(),
        row.resident_kib.to_string(),
        row.terminal.clone(),
        row.state.clone(),
        start_text(row.started_at),
        format!("{}:{:02}", row.cpu_seconds / 60, row.cpu_seconds % 60),
        row.command.clone(),
    ]
}

fn user_name(uid: u32, passwd: &str) -> String {
    let wanted = uid.to_string();
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&wanted.as_str())).then(|| fields[0].to_owned())
    });
    found.unwrap_or(wanted)
}

/// Hour and minute in UTC; the machine's zone is not looked up.
fn start_text(at: i64) -> String {
    format!("{:02}:{:02}", at.rem_euclid(86_400) / 3600, at.rem_euclid(3600) / 60)
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
