//! Finds the program that a process executes, with Go's rules and words, because clients match on them.
//!
//! In: `args[0]`, the process's environment, and its rights. Out: the path to execute. Runs in the new process, as its
//! user and in its working directory.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FileType, stat};
use rustix::io::Errno;

use crate::sys;
use crate::wire::Failure;

/// Finds the program to execute.
///
/// Source: Go, `os/exec/lp_unix.go`: a name with a slash is taken as it is, any other is looked up in `PATH`, where
/// every error only means to try the next directory.
pub(crate) fn find(program: &str, env: &[String]) -> Result<CString, Failure> {
    if program.contains('/') {
        return check(program).map_err(|errno| {
            let program = program.to_owned();
            match errno {
                Errno::ACCESS | Errno::PERM | Errno::ISDIR => Failure::NotExecutable { program, errno },
                _ => Failure::NoProgram { program, errno },
            }
        });
    }
    // The last one wins, as with a shell that is given a variable twice.
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    if !program.is_empty() && !path.is_empty() {
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            if let Ok(found) = check(&format!("{directory}/{program}")) {
                return Ok(found);
            }
        }
    }
    Err(Failure::NotInPath { program: program.to_owned() })
}

/// Whether a file exists, is no directory and may be executed.
fn check(path: &str) -> Result<CString, Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let stat = stat(&*path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match sys::may_execute(&path) {
        Ok(()) => Ok(path),
        // Kernels before 5.8, and filters of an outer container, do not know the call.
        Err(Errno::NOSYS | Errno::PERM) if stat.st_mode & 0o111 != 0 => Ok(path),
        Err(Errno::NOSYS) => Err(Errno::ACCESS),
        Err(errno) => Err(errno),
    }
}

/// Device and inode of this very program, to refuse its execution inside a container.
pub(crate) fn own_file() -> Option<(u64, u64)> {
    let metadata = std::fs::metadata("/proc/self/exe").ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether `path` is the file of `own_file`.
pub(crate) fn is_file(path: &CString, own: (u64, u64)) -> bool {
    stat(&**path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == own)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_or_refused_as_go_does() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(at("first")).unwrap();
        std::fs::create_dir(at("second")).unwrap();
        std::fs::create_dir(at("first/tool")).unwrap();
        std::fs::write(at("second/tool"), "x").unwrap();
        std::fs::set_permissions(at("second/tool"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(at("second/data"), "x").unwrap();
        std::fs::set_permissions(at("second/data"), PermissionsExt::from_mode(0o644)).unwrap();
        let env = vec![format!("PATH=/nowhere:{}:{}", at("first"), at("second"))];

        assert_eq!(find("tool", &env).unwrap().to_str().unwrap(), at("second/tool"));
        assert_eq!(find("data", &env).unwrap_err(), Failure::NotInPath { program: "data".into() });
        assert_eq!(find("tool", &[]).unwrap_err(), Failure::NotInPath { program: "tool".into() });
        assert_eq!(find("", &env).unwrap_err(), Failure::NotInPath { program: String::new() });
        let missing = Failure::NoProgram { program: "/x/y".into(), errno: Errno::NOENT };
        assert_eq!(find("/x/y", &env).unwrap_err(), missing);
        let data = at("second/data");
        assert_eq!(
            find(&data, &env).unwrap_err(),
            Failure::NotExecutable { program: data, errno: Errno::ACCESS }
        );
        let dir = at("first");
        assert_eq!(
            find(&dir, &env).unwrap_err(),
            Failure::NotExecutable { program: dir, errno: Errno::ISDIR }
        );
    }

    #[test]
    fn the_last_path_of_the_environment_counts() {
        let env = vec!["PATH=/nowhere".to_owned(), "PATH=/usr/bin:/bin".to_owned()];
        assert!(find("sh", &env).is_ok());
    }
}
