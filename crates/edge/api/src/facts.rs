//! What this machine is: kernel, system, memory, processors, cgroups.
//!
//! In: `/proc`, `/etc/os-release`, `/sys/fs/cgroup`. Out: values for `info` and `version`. Read once: none of it changes
//! while the daemon runs. A file that cannot be read leaves its value empty.

use std::fs;
use std::path::Path;

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `6.1.0-13-amd64`.
    pub kernel: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub system: String,
    /// `12`.
    pub system_version: String,
    /// `x86_64`, `aarch64`: the kernel's name.
    pub machine: String,
    /// Bytes.
    pub memory: i64,
    /// Processors.
    pub cpus: i64,
    /// `1` or `2`.
    pub cgroup_version: String,
}

impl HostFacts {
    /// Reads them.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = text("/etc/os-release");
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: release_field(&release, "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            system_version: release_field(&release, "VERSION_ID").unwrap_or_default(),
            machine: std::env::consts::ARCH.to_owned(),
            memory: memory_bytes(&text("/proc/meminfo")),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| i64::try_from(count.get()).unwrap_or(1)),
            cgroup_version: if is_unified() { "2" } else { "1" }.to_owned(),
        }
    }

    /// The architecture as Go names it.
    pub fn go_arch(&self) -> &str {
        match self.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        }
    }
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn memory_bytes(meminfo: &str) -> i64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

fn release_field(release: &str, name: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_understood() {
        assert_eq!(memory_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n"), 2 * 1024 * 1024);
        assert_eq!(memory_bytes(""), 0);
        let release = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\n";
        assert_eq!(release_field(release, "PRETTY_NAME").unwrap(), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(release_field(release, "VERSION_ID").unwrap(), "12");
        assert_eq!(release_field(release, "NONE"), None);
    }
}
