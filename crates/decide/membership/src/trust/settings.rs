//! What a `swarm update` makes of the cluster object: settings, root, join tokens, lock.
//!
//! In: the cluster and what is wanted, with fresh secrets from the shell. Out: the cluster to write. Keys that came with
//! the settings are kept where managers keep keys, not in the settings that the API shows.

use objects::{Cluster, ClusterSpec, RootRotation, Timestamp};

use super::root::{KnownRoot, NewRoot};

/// What becomes of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The settings, with defaults filled in and checked.
    pub spec: ClusterSpec,
    /// Whether the token of workers is to change.
    pub rotate_worker_token: bool,
    /// Whether the token of managers is to change.
    pub rotate_manager_token: bool,
    /// Whether the key that unlocks managers is to change; nothing when they do not lock.
    pub rotate_unlock_key: bool,
    /// What was made of the plan for the root; `None` keeps it.
    pub root: Option<MadeRoot>,
}

/// A planned change of the root, with everything made.
#[derive(Debug, Clone, PartialEq)]
pub enum MadeRoot {
    /// As [`super::RootChange::Settle`].
    Settle(KnownRoot),
    /// As [`super::RootChange::GoOn`].
    GoOn(KnownRoot),
    /// As [`super::RootChange::Begin`].
    Begin(NewRoot),
}

/// Secrets made for one update, used or not. The tokens are for the root that the swarm has.
#[derive(Clone)]
pub struct FreshSecrets {
    /// `SWMTKN-1-…`.
    pub worker_token: String,
    /// `SWMTKN-1-…`.
    pub manager_token: String,
    /// `SWMKEY-1-…`.
    pub unlock_key: String,
}

/// The cluster after an update.
#[must_use]
pub fn updated(cluster: &Cluster, settings: Settings, fresh: FreshSecrets, now: Timestamp) -> Cluster {
    let mut next = Cluster { spec: settings.spec, ..cluster.clone() };
    if settings.rotate_worker_token {
        next.internal.worker_token = fresh.worker_token;
    }
    if settings.rotate_manager_token {
        next.internal.manager_token = fresh.manager_token;
    }
    lock(&mut next, settings.rotate_unlock_key, fresh.unlock_key);
    if let Some(root) = settings.root {
        change_root(&mut next, root, now);
    }
    next.internal.last_forced_rotation = next.spec.ca_config.force_rotate;
    next.spec.ca_config.signing_ca_cert.clear();
    next.spec.ca_config.signing_ca_key.clear();
    next
}

/// Gives managers a key to unlock them, another one, or none.
fn lock(cluster: &mut Cluster, rotate: bool, fresh: String) {
    let internal = &mut cluster.internal;
    let key = match cluster.spec.encryption_config.auto_lock_managers {
        true if rotate || internal.unlock_key.is_empty() => fresh,
        true => return,
        false if internal.unlock_key.is_empty() => return,
        false => String::new(),
    };
    internal.unlock_key = key;
    internal.unlock_key_version += 1;
}

fn change_root(cluster: &mut Cluster, root: MadeRoot, now: Timestamp) {
    let internal = &mut cluster.internal;
    match root {
        MadeRoot::GoOn(next) => {
            if let Some(rotation) = &mut internal.root_rotation {
                rotation.ca_key = next.key;
            }
        }
        MadeRoot::Settle(present) => {
            internal.ca_key = present.key;
            if internal.root_rotation.take().is_some() {
                internal.issuer_since = now;
            }
            cluster.tls_info = present.tls_info;
        }
        MadeRoot::Begin(new) => {
            internal.root_rotation = Some(RootRotation {
                ca_certificate: new.root.certificate,
                ca_key: new.root.key,
                cross_signed: new.cross_signed,
            });
            internal.issuer_since = now;
            // Clients follow a rotation by comparing nodes with this: the new issuer, under the root still trusted.
            cluster.tls_info.cert_issuer_subject = new.root.tls_info.cert_issuer_subject;
            cluster.tls_info.cert_issuer_public_key = new.root.tls_info.cert_issuer_public_key;
        }
    }
    cluster.root_rotation_in_progress = cluster.internal.root_rotation.is_some();
}
