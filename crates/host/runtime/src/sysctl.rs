//! Sets kernel parameters of a container's namespaces.
//!
//! In: dotted names and values. Out: writes to the container's `/proc/sys`, before that becomes read-only. Which names
//! a container may set is decided by the caller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::Step;
use crate::inside::Inside;
use crate::wire::{AtStep, Failure};

/// Sets all parameters.
pub(crate) fn apply(inside: &Inside, parameters: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (name, value) in parameters {
        let path = path_of(name).ok_or(Errno::INVAL).at(Step::Sysctl, name)?;
        write(inside, &path, value).at(Step::Sysctl, name)?;
    }
    Ok(())
}

/// Writes one file below `/proc/sys`, which must be the kernel's.
pub(crate) fn write(inside: &Inside, path: &Path, value: &str) -> Result<(), Errno> {
    const PROC_MAGIC: u64 = 0x9fa0;
    let file = inside.open(path, OFlags::WRONLY)?;
    if rustix::fs::fstatfs(&file)?.f_type as u64 != PROC_MAGIC {
        return Err(Errno::NOTSUP);
    }
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// The file of a name. As with `sysctl(8)`, the first of `.` and `/` to occur separates, the other is part of a name.
fn path_of(name: &str) -> Option<PathBuf> {
    let first = name.find(['.', '/'])?;
    let path = if name.as_bytes().get(first) == Some(&b'/') {
        name.to_owned()
    } else {
        name.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let sound = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    sound.then(|| Path::new("/proc/sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_below_proc_sys() {
        for (name, expect) in [
            ("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding")),
            ("kernel", None),
            ("net/../../etc/passwd", None),
            ("net..x", None),
            ("", None),
        ] {
            assert_eq!(path_of(name), expect.map(PathBuf::from), "{name}");
        }
    }
}
