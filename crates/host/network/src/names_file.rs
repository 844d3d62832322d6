//! Keeps the files of names, one for each network, that the resolvers of this machine's containers read.
//!
//! In: the rows of a network. Out: `names/<network id>` in the exec root, replaced by renaming and never changed in place:
//! shims have the files mapped, and see a new one before their next answer. A file that would be the same is left alone.
//! Never decides which names there are.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use names::Rows;

/// Below the exec root.
const FOLDER: &str = "names";

/// The folder with the files of names.
#[derive(Debug, Clone)]
pub struct NamesDir {
    path: PathBuf,
}

impl NamesDir {
    /// Makes the folder if it is missing. What an earlier daemon left in it stays true until it is replaced.
    pub fn open(exec_root: &Path) -> io::Result<Self> {
        let path = exec_root.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Where a network's names are, or will be.
    pub fn file(&self, network_id: &str) -> PathBuf {
        self.path.join(network_id)
    }

    /// As [`NamesDir::file`], for who only has to know where.
    pub fn file_in(exec_root: &Path, network_id: &str) -> PathBuf {
        exec_root.join(FOLDER).join(network_id)
    }

    /// Makes these the names of a network; whether they were others before.
    ///
    /// # Errors
    /// When it can't be written: resolvers keep what they had.
    pub fn write(&self, network_id: &str, rows: &Rows) -> io::Result<bool> {
        let (path, table) = (self.checked(network_id)?, rows.to_table());
        if fs::read(&path).is_ok_and(|before| before == table) {
            return Ok(false);
        }
        let temporary = self.path.join(format!(".{network_id}.new"));
        // One that a crash left may be of any length; nobody has it mapped.
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let written = file.write_all(&table).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // Without room for the new names there is none for half of them.
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| true)
    }

    /// Forgets a network; no error when it isn't known.
    pub fn remove(&self, network_id: &str) -> io::Result<()> {
        match fs::remove_file(self.checked(network_id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets all networks but these, and what a crash left half written.
    pub fn retain(&self, is_used: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if !name.to_str().is_some_and(|name| !name.starts_with('.') && is_used(name)) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(())
    }

    /// Forgets everything, and the folder: nothing can be written until it is opened again.
    pub fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ids are made by managers and by this machine, and are no paths.
    fn checked(&self, network_id: &str) -> io::Result<PathBuf> {
        if network_id.is_empty() || network_id.starts_with('.') || network_id.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.file(network_id))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn rows(names: &[&str]) -> Rows {
        let mut rows = Rows::new("net");
        names.iter().for_each(|name| rows.add(name, [10, 0, 1, 2].into()));
        rows
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    fn listed(dir: &NamesDir) -> Vec<String> {
        let entries = fs::read_dir(&dir.path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_only_when_names_change() {
        let root = tempfile::tempdir().unwrap();
        let dir = NamesDir::open(root.path()).unwrap();
        assert!(dir.write("n1", &rows(&["web"])).unwrap());
        let first = fs::File::open(dir.file("n1")).unwrap();
        assert!(!dir.write("n1", &rows(&["WEB"])).unwrap());
        assert_eq!(inode(&dir.file("n1")), first.metadata().unwrap().ino());
        assert!(dir.write("n1", &rows(&["web", "db"])).unwrap());
        assert_ne!(
            inode(&dir.file("n1")),
            first.metadata().unwrap().ino(),
            "another file, not another content"
        );
        assert_eq!(fs::read(dir.file("n1")).unwrap(), rows(&["db", "web"]).to_table());
        let again = NamesDir::open(root.path()).unwrap();
        assert!(!again.write("n1", &rows(&["web", "db"])).unwrap(), "also after a restart of the daemon");
        fs::remove_file(dir.file("n1")).unwrap();
        assert!(again.write("n1", &rows(&["web", "db"])).unwrap(), "also when somebody removed it");
    }

    #[test]
    fn files_go_with_their_networks() {
        let root = tempfile::tempdir().unwrap();
        let dir = NamesDir::open(root.path()).unwrap();
        for id in ["n1", "n2", "n3"] {
            dir.write(id, &rows(&["web"])).unwrap();
        }
        fs::write(dir.path.join(".n4.new"), "half").unwrap();
        dir.remove("n1").unwrap();
        dir.remove("n1").unwrap();
        assert_eq!(listed(&dir), [".n4.new", "n2", "n3"]);
        dir.retain(|id| id == "n3").unwrap();
        assert_eq!(listed(&dir), ["n3"]);
        dir.remove_all().unwrap();
        dir.remove_all().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = NamesDir::open(root.path()).unwrap();
        for id in ["", ".", "..", "../x", "a/b"] {
            assert!(dir.write(id, &rows(&[])).is_err() && dir.remove(id).is_err(), "{id}");
        }
    }
}
