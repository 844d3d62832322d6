//! Secrets and configs that this node's tasks were granted: in memory alone, gone with the daemon or when no task needs
//! them any more.

use std::collections::BTreeMap;

use objects::{ConfigId, SecretId};
use wire::session::{Assigned, Config, Removed, Secret};

/// What was granted.
#[derive(Default)]
pub(crate) struct Grants {
    secrets: BTreeMap<SecretId, Secret>,
    configs: BTreeMap<ConfigId, Config>,
}

impl Grants {
    /// Takes new ones, and those that changed.
    pub(crate) fn add(&mut self, given: &mut Assigned) {
        let secrets = std::mem::take(&mut given.secrets);
        let configs = std::mem::take(&mut given.configs);
        self.secrets.extend(secrets.into_iter().map(|secret| (secret.id.clone(), secret)));
        self.configs.extend(configs.into_iter().map(|config| (config.id.clone(), config)));
    }

    /// Takes exactly these.
    pub(crate) fn replace(&mut self, given: &mut Assigned) {
        *self = Self::default();
        self.add(given);
    }

    /// Lets go of what was withdrawn.
    pub(crate) fn remove(&mut self, removed: &Removed) {
        removed.secrets.iter().for_each(|id| drop(self.secrets.remove(id)));
        removed.configs.iter().for_each(|id| drop(self.configs.remove(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_replaced_added_to_and_withdrawn() {
        let secret = |id: &str| Secret { id: id.into(), name: id.to_owned(), data: "c2VjcmV0".into() };
        let given = |ids: &[&str]| Assigned {
            secrets: ids.iter().map(|id| secret(id)).collect(),
            configs: vec![Config { id: "c".into(), ..Config::default() }],
            ..Assigned::default()
        };
        let mut grants = Grants::default();
        grants.replace(&mut given(&["a", "b"]));
        grants.add(&mut given(&["d"]));
        grants.remove(&Removed {
            secrets: vec!["a".into()],
            configs: vec!["c".into()],
            ..Removed::default()
        });
        let ids: Vec<&str> = grants.secrets.keys().map(SecretId::as_str).collect();
        assert_eq!((ids.as_slice(), grants.configs.len()), (&["b", "d"][..], 0));
        grants.replace(&mut given(&["e"]));
        assert_eq!((grants.secrets.len(), grants.configs.len()), (1, 1));
    }
}
