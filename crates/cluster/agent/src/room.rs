//! Whether the disk takes what a manager's log is about to write.
//!
//! In: the log's directory. Out: nothing, or the kernel's refusal. A manager whose disk is full must not show itself and
//! go away again with its next write: it is opened once a write of some size went through. Never leaves a file behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// How much is written. chosen: more than a commit of a few changes and its page tables take.
const PROBE_BYTES: usize = 64 * 1024;

/// Writes a file beside `log` and removes it again.
///
/// # Errors
/// What the kernel says, for example that there is no space left on the device.
pub(crate) async fn for_log(log: &Path) -> io::Result<()> {
    let probe = log.with_extension("probe");
    let written = tokio::task::spawn_blocking(move || {
        let written = write(&probe);
        match std::fs::remove_file(&probe) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
            _ => written,
        }
    });
    written.await.map_err(io::Error::other)?
}

fn write(probe: &Path) -> io::Result<()> {
    let mut file = File::create(probe)?;
    file.write_all(&[0; PROBE_BYTES])?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_with_room_takes_a_log_and_one_without_does_not() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("raft");
        for_log(&log).await.unwrap();
        // A device on which there is never any room.
        std::os::unix::fs::symlink("/dev/full", root.path().join("raft.probe")).unwrap();
        assert_eq!(for_log(&log).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left behind");
        for_log(&log).await.unwrap();
    }
}
