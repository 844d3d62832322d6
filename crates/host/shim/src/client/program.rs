//! The program that shims run, out of reach of the containers they hold.
//!
//! In: the path of this binary. Out: what to execute. Opened once, at the start: an upgrade that puts another file there
//! does not change what is executed until the daemon itself is restarted. Never copies the program: all shims share the
//! pages of one file.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The program that is run as `PROGRAM shim DIR`.
///
/// A container sees it as `/proc/PID/exe` of what is about to become its process, and may even execute it (a link or a
/// script's interpreter that leads to `/proc/self/exe`). It must not be able to write to it: it runs as root outside.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// The read-only view that `path` leads to.
    _view: Option<OwnedFd>,
}

impl Program {
    /// Takes hold of the program at `path`. When the kernel refuses to make a read-only view of it, that is logged, and
    /// the program is run as it is: it still cannot be written to while any process runs it.
    #[must_use]
    pub fn open(path: &Path) -> Program {
        match runtime::read_only_view(path) {
            Ok(view) => {
                // Resolved by the new process, before its descriptors are closed.
                let path = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
                Program { path, _view: Some(view) }
            }
            Err(error) => {
                tracing::warn!(program = %path.display(), %error, "shims run from a program that is not read-only");
                Program { path: path.to_owned(), _view: None }
            }
        }
    }

    /// What to execute; valid in this process and what it forks, as long as this value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io;
    use std::process::Command;

    #[test]
    fn a_program_is_executed_but_not_written_to_also_after_its_name_was_given_to_another() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("!!! NOT RUN: a read-only view of a program needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let executable = fs::read("/bin/true").unwrap();
        fs::copy("/bin/true", &path).unwrap();
        let program = Program::open(&path);
        assert!(Command::new(program.path()).status().unwrap().success());
        // Nothing runs it any more, so that only the mount is in the way.
        let open = || fs::OpenOptions::new().write(true).open(program.path());
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(fs::OpenOptions::new().write(true).open(&path).is_ok(), "the file itself is as it was");
        fs::write(dir.path().join("new"), "another").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(Command::new(program.path()).status().unwrap().success());
        assert_eq!(fs::read(program.path()).unwrap(), executable);
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn a_program_that_cannot_be_protected_is_run_as_it_is() {
        // A link that leads to no file on a mount.
        let program = Program::open(Path::new("/no/such/program"));
        assert_eq!(program.path(), Path::new("/no/such/program"));
    }
}
