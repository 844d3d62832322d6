//! What `HEAD` and `GET /containers/{id}/archive` say of a path, in a header.
//!
//! In: a file's attributes as the kernel has them. Out: the JSON of the header, with Go's mode bits. Never looks at a
//! file.

use objects::Timestamp;
use serde::{Deserialize, Serialize};

/// A path in a container: the value of `X-Docker-Container-Path-Stat`, as JSON in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// In bytes.
    pub size: i64,
    /// Kind and permissions in Go's bits; see [`go_mode`].
    pub mode: u32,
    /// When its content changed last.
    pub mtime: Timestamp,
    /// Of a symbolic link: where it ends, as an absolute path in the container; else empty.
    pub link_target: String,
}

/// Go's bit for folders.
pub const GO_DIRECTORY: u32 = 1 << 31;
/// Go's bit for symbolic links.
pub const GO_SYMLINK: u32 = 1 << 27;

/// The kernel's mode in Go's bits. Source: Go, `io/fs`, `FileMode`, and `os/stat_linux.go`.
pub fn go_mode(mode: u32) -> u32 {
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SET_UID: u32 = 1 << 23;
    const SET_GID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match mode & 0o170_000 {
        0o040_000 => GO_DIRECTORY,
        0o120_000 => GO_SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHAR_DEVICE,
        0o010_000 => NAMED_PIPE,
        0o140_000 => SOCKET,
        _ => 0,
    };
    let special = [(0o4000, SET_UID), (0o2000, SET_GID), (0o1000, STICKY)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, go)| all | go);
    kind | special | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_in_gos_bits() {
        for (mode, expect) in [
            (0o100_644, 0o644),
            (0o040_755, 0x8000_01ed),
            (0o120_777, 0x0800_01ff),
            (0o041_777, 0x8010_01ff),
            (0o104_755, 0x0080_01ed),
            (0o020_666, 0x0420_01b6),
            (0o060_660, 0x0400_01b0),
            (0o010_600, 0x0200_0180),
            (0o140_755, 0x0100_01ed),
        ] {
            assert_eq!(go_mode(mode), expect, "{mode:o}");
        }
    }

    #[test]
    fn the_header_has_the_clients_names() {
        let stat = PathStat { name: "a".into(), size: 3, mode: 0o644, ..PathStat::default() };
        let text = serde_json::to_string(&stat).unwrap();
        assert_eq!(
            text,
            r#"{"name":"a","size":3,"mode":420,"mtime":"0001-01-01T00:00:00Z","linkTarget":""}"#
        );
    }
}
