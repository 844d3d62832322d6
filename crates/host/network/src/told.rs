//! What managers told this node of the swarm's networks, kept over restarts.
//!
//! In: what a manager says, as a whole or as news. Out: the networks as they are now, and which of them are different. On
//! disk in `overlays.json`, so that a node that is cut off from the managers keeps its networks, and what was said since
//! that was written in `overlays.news`, a line each: a daemon that is killed forgets nothing that the kernel has, or the
//! next one would take it away. Nothing in them is secret. Changes nothing in the kernel.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use objects::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use wire::network::{NetworkView, Networks};
use wire::session::Assignments;

use crate::state_file;

/// How long lines of news wait to be merged into the file. chosen: what comes in a burst is merged once.
const SAVE_WITHIN: Duration = Duration::from_secs(1);

/// The swarm's networks that this node uses.
pub(crate) struct Told {
    path: PathBuf,
    node: NodeId,
    networks: Networks,
    /// Open while it has lines.
    news: Option<File>,
    save_at: Option<Instant>,
}

/// A line of news.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    node: NodeId,
    told: Cow<'a, Assignments>,
}

/// Contents of the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    node: NodeId,
    networks: Vec<NetworkView>,
}

impl Told {
    /// Reads what was kept. A file that cannot be read counts as none: the managers say it again.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join("overlays.json");
        let kept = match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?)) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the file of the swarm's networks cannot be used");
                Kept::default()
            }
        };
        let networks = kept.networks.into_iter().map(|view| (view.id.clone(), view)).collect();
        let mut told = Self { path, node: kept.node, networks, news: None, save_at: None };
        told.read_news();
        told
    }

    /// Takes the lines of news in. Those that the file has already change nothing: each says what is there from then on. The
    /// last one may have been cut off.
    fn read_news(&mut self) {
        let text = fs::read_to_string(self.news_path()).unwrap_or_default();
        for line in text.lines().map_while(|line| serde_json::from_str::<Line<'_>>(line).ok()) {
            self.node = line.node;
            wire::network::apply(&mut self.networks, &line.told);
            self.save_at = Some(Instant::now() + SAVE_WITHIN);
        }
    }

    fn news_path(&self) -> PathBuf {
        self.path.with_extension("news")
    }

    /// Adds a line of news; it outlives this process, and need not outlive the kernel.
    fn add_line(&mut self, told: &Assignments) -> io::Result<()> {
        let line = Line { node: self.node.clone(), told: Cow::Borrowed(told) };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        if self.news.is_none() {
            fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/")))?;
            self.news = Some(File::options().append(true).create(true).open(self.news_path())?);
        }
        self.news.as_mut().map_or(Ok(()), |file| file.write_all(&bytes))
    }

    /// This node; empty outside a swarm.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// The networks.
    pub(crate) fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Takes in what a manager said; the networks that are different now, or gone.
    pub(crate) fn take_in(&mut self, node: NodeId, told: &Assignments) -> BTreeSet<NetworkId> {
        let mut touched = self.touched(told);
        if self.node != node {
            touched.extend(self.networks.keys().cloned());
            self.node = node;
        }
        wire::network::apply(&mut self.networks, told);
        if let Err(error) = self.add_line(told) {
            tracing::warn!(%error, "a restart may not know what was said of networks just now");
        }
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_WITHIN);
        touched
    }

    fn touched(&self, told: &Assignments) -> BTreeSet<NetworkId> {
        match told {
            Assignments::Complete(all) => {
                let said: BTreeSet<_> = all.networks.iter().map(|view| &view.id).collect();
                let is_news = |view: &&NetworkView| self.networks.get(&view.id) != Some(*view);
                let changed = all.networks.iter().filter(is_news).map(|view| view.id.clone());
                let gone = self.networks.keys().filter(|id| !said.contains(id)).cloned();
                changed.chain(gone).collect()
            }
            Assignments::Incremental { update, remove } => {
                let whole = update.networks.iter().map(|view| &view.id);
                let news = update.network_news.iter().map(|news| &news.id);
                whole.chain(news).chain(&remove.networks).cloned().collect()
            }
        }
    }

    /// When what was said last is to be written.
    pub(crate) fn save_at(&self) -> Option<Instant> {
        self.save_at
    }

    /// Writes what was said; a crash leaves the old or the new file.
    pub(crate) fn save(&mut self) {
        self.save_at = None;
        let kept = Kept { node: self.node.clone(), networks: self.networks.values().cloned().collect() };
        self.news = None;
        let saved = state_file::replace(&self.path, &kept).and_then(|()| remove(&self.news_path()));
        if let Err(error) = saved {
            tracing::warn!(path = %self.path.display(), %error, "the swarm's networks are not kept on disk");
        }
    }

    /// Outside a swarm there are none.
    pub(crate) fn forget(&mut self) -> BTreeSet<NetworkId> {
        self.node = NodeId::default();
        (self.save_at, self.news) = (None, None);
        if let Err(error) = remove(&self.news_path()).and_then(|()| remove(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "the file of the swarm's networks is still there");
        }
        std::mem::take(&mut self.networks).into_keys().collect()
    }
}

/// Removes a file that need not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use wire::network::NetworkNews;
    use wire::session::{Assigned, Removed};

    use super::*;

    fn view(id: &str, vni: u32) -> NetworkView {
        NetworkView { id: id.into(), vni, ..NetworkView::default() }
    }

    fn all(networks: Vec<NetworkView>) -> Assignments {
        Assignments::Complete(Assigned { networks, ..Assigned::default() })
    }

    fn ids(touched: BTreeSet<NetworkId>) -> String {
        touched.iter().map(NetworkId::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_is_different_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::open(dir.path());
        assert_eq!(ids(told.take_in("n1".into(), &all(vec![view("a", 1), view("b", 2)]))), "a b");
        assert_eq!(ids(told.take_in("n1".into(), &all(vec![view("a", 1), view("c", 3)]))), "b c");
        let update = Assigned { network_news: vec![NetworkNews::of("a".into())], ..Assigned::default() };
        let remove = Removed { networks: vec!["c".into()], ..Removed::default() };
        assert_eq!(ids(told.take_in("n1".into(), &Assignments::Incremental { update, remove })), "a c");
    }

    #[test]
    fn what_was_said_last_survives_a_daemon_that_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::open(dir.path());
        told.take_in("n1".into(), &all(vec![view("a", 1), view("b", 2)]));
        told.save();
        let update = Assigned { networks: vec![view("c", 3)], ..Assigned::default() };
        let remove = Removed { networks: vec!["a".into()], ..Removed::default() };
        told.take_in("n1".into(), &Assignments::Incremental { update, remove });
        let named = |told: &Told| ids(told.networks().keys().cloned().collect());
        let news = dir.path().join("overlays.news");
        let mut again = Told::open(dir.path());
        assert_eq!(named(&again), "b c");
        assert!(again.save_at().is_some(), "to be merged");
        // Killed between the two files: the news are in the file already.
        let lines = fs::read(&news).unwrap();
        again.save();
        assert!(!news.exists());
        fs::write(&news, [lines.as_slice(), b"{\"node\":\"n1\",\"to"].concat()).unwrap();
        assert_eq!(named(&Told::open(dir.path())), "b c");
        again.forget();
        assert!(Told::open(dir.path()).networks().is_empty());
    }

    #[test]
    fn what_was_said_survives_and_a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::open(dir.path());
        told.take_in("n1".into(), &all(vec![view("a", 1)]));
        assert!(told.save_at().is_some());
        told.save();
        let mut again = Told::open(dir.path());
        assert_eq!((again.node().as_str(), again.networks().len(), again.save_at()), ("n1", 1, None));
        assert_eq!(ids(again.forget()), "a");
        assert!(Told::open(dir.path()).networks().is_empty());
        fs::write(dir.path().join("overlays.json"), "{").unwrap();
        assert!(Told::open(dir.path()).networks().is_empty());
    }
}
