//! Removes names and images, with Docker's rules on what forbids it.
//!
//! In: a name or id, whether it may be forced. Out: what was untagged and deleted, or the conflict. An image that a
//! container holds and that is removed by force stays on disk, unseen, until the last container lets go.

use std::collections::BTreeSet;
use std::sync::Arc;

use docker::Reference;

use crate::errors::{FileError, LookupError, RemoveError};
use crate::ids::ImageId;
use crate::index::Index;
use crate::options::Removed;
use crate::query::{By, find};
use crate::shelf::Shelf;

/// Length of a short container id. Source: moby, `pkg/stringid`.
const SHORT_ID: usize = 12;

/// What to do, decided from the index alone.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    id: ImageId,
    /// Canonical names that go.
    names: Vec<String>,
    deletes_image: bool,
    /// The image only goes if nothing holds it: no error otherwise, since the name went.
    is_optional: bool,
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// See [`crate::Store::remove`]. Blocks on the disk.
pub(crate) fn remove(shelf: &Arc<Shelf>, name: &str, force: bool) -> Result<Vec<Removed>, RemoveError> {
    let mut doomed = Vec::new();
    let outcome = shelf.commit(|index: &mut Index| -> Result<Vec<Removed>, RemoveError> {
        let holders = shelf.holders(&find(index, name)?.0);
        let mut plan = plan(index, name, force, &holders)?;
        if plan.deletes_image {
            // From here on no container can begin to hold it; what holds it now was seen.
            let id = plan.id.clone();
            let is_optional = plan.is_optional;
            let in_the_way = has_children(index, &id).or_else(|| conflict(&id, &holders, force));
            let may_go = match in_the_way {
                Some(conflict) => Err(conflict),
                None => shelf.doom(&id, |holders| conflict(&id, holders, force).map_or(Ok(()), Err)),
            };
            match may_go {
                Ok(()) => doomed.push(id),
                Err(_) if is_optional => plan.deletes_image = false,
                Err(conflict) => return Err(conflict),
            }
        }
        let parent = index.images.get(&plan.id).and_then(|record| record.parent.clone());
        let mut removed = carry_out(index, &plan, !shelf.holders(&plan.id).is_empty());
        if plan.deletes_image {
            remove_steps(shelf, index, parent, &mut removed, &mut doomed);
        }
        Ok(removed)
    });
    for id in &doomed {
        shelf.spare(id);
    }
    if outcome.is_ok() {
        shelf.collect();
    }
    outcome
}

/// Source: moby, `daemon/images/image_delete.go`, `ImageDelete`.
fn plan(index: &Index, name: &str, force: bool, holders: &[(String, bool)]) -> Result<Plan, RemoveError> {
    let (id, by) = find(index, name)?;
    let names: Vec<String> = index.names_of(&id).map(str::to_owned).collect();
    let is_single = is_single_reference(&names);
    match by {
        By::Name(canonical) => {
            if !force
                && is_single
                && let Some((container, _)) = holders.first()
            {
                return Err(RemoveError::ReferenceInUse {
                    reference: name.to_owned(),
                    container: short(container).to_owned(),
                    image: id.short().to_owned(),
                });
            }
            let gone = with_its_digests(&names, &canonical);
            let deletes_image = gone.len() == names.len();
            Ok(Plan { id, names: gone, deletes_image, is_optional: true })
        }
        By::Id if is_single || force => {
            if let Some(conflict) = conflict(&id, holders, force) {
                return Err(conflict);
            }
            Ok(Plan { id, names, deletes_image: true, is_optional: false })
        }
        By::Id => Err(RemoveError::Conflict {
            image: id.short().to_owned(),
            is_hard: false,
            because: "image is referenced in multiple repositories".to_owned(),
        }),
    }
}

/// Whether steps of a build were made on it. Source: moby, `checkImageDeleteConflict`, `conflictDependentChild`.
fn has_children(index: &Index, id: &ImageId) -> Option<RemoveError> {
    index.has_children(id).then(|| RemoveError::Conflict {
        image: id.short().to_owned(),
        is_hard: true,
        because: "image has dependent child images".to_owned(),
    })
}

/// Removes the steps that led to an image, up to one that has a name, another step on it, or a container.
/// Source: moby, `daemon/images/image_delete.go`, `imageDeleteHelper`, "prune".
fn remove_steps(
    shelf: &Shelf,
    index: &mut Index,
    mut step: Option<ImageId>,
    removed: &mut Vec<Removed>,
    doomed: &mut Vec<ImageId>,
) {
    while let Some(id) = step {
        let is_needed = index.names_of(&id).next().is_some() || index.has_children(&id);
        let unused = |holders: &[(String, bool)]| if holders.is_empty() { Ok(()) } else { Err(()) };
        if is_needed || !index.images.contains_key(&id) || shelf.doom(&id, unused).is_err() {
            return;
        }
        doomed.push(id.clone());
        step = index.images.get(&id).and_then(|record| record.parent.clone());
        let plan = Plan { id, names: Vec::new(), deletes_image: true, is_optional: true };
        removed.extend(carry_out(index, &plan, false));
    }
}

/// Why containers forbid the removal, if they do. Source: moby, `checkImageDeleteConflict`.
fn conflict(id: &ImageId, holders: &[(String, bool)], force: bool) -> Option<RemoveError> {
    let running = holders.iter().find(|(_, is_running)| *is_running);
    let (state, container) = match (running, holders.first()) {
        (Some((container, _)), _) => ("running", container),
        (None, Some((container, _))) if !force => ("stopped", container),
        _ => return None,
    };
    Some(RemoveError::Conflict {
        image: id.short().to_owned(),
        is_hard: state == "running",
        because: format!("image is being used by {state} container {}", short(container)),
    })
}

/// Whether at most one tag names the image, in one repository. Source: moby, `isSingleReference`.
fn is_single_reference(names: &[String]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let (digests, tags): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.contains('@'));
    let repositories: BTreeSet<String> = digests.iter().filter_map(|name| repository(name)).collect();
    match tags[..] {
        [] => repositories.len() == 1,
        [tag] => repositories.len() == 1 && repository(tag).is_some_and(|name| repositories.contains(&name)),
        _ => false,
    }
}

fn repository(name: &str) -> Option<String> {
    Reference::parse(name).ok().map(|reference| reference.name())
}

/// The name itself, and with the last tag of a repository also that repository's digests.
fn with_its_digests(names: &[String], gone: &str) -> Vec<String> {
    let mut all = vec![gone.to_owned()];
    if gone.contains('@') {
        return all;
    }
    let home = repository(gone);
    let of_home = || names.iter().filter(|name| *name != gone && repository(name) == home);
    if of_home().all(|name| name.contains('@')) {
        all.extend(of_home().cloned());
    }
    all
}

fn carry_out(index: &mut Index, plan: &Plan, is_held: bool) -> Vec<Removed> {
    let mut removed = Vec::new();
    for name in &plan.names {
        index.names.remove(name);
        let reference = Reference::parse(name).map_or_else(|_| name.clone(), |r| r.familiar());
        removed.push(Removed::Untagged { reference, image: plan.id.clone() });
    }
    if !plan.deletes_image {
        return removed;
    }
    if is_held {
        if let Some(record) = index.images.get_mut(&plan.id) {
            record.is_removed = true;
        }
        removed.push(Removed::Image(plan.id.clone()));
        return removed;
    }
    removed.push(Removed::Image(plan.id.clone()));
    if let Some(record) = index.images.remove(&plan.id) {
        let used: BTreeSet<_> = index.images.values().flat_map(|other| &other.layers).collect();
        let gone = record.layers.into_iter().rev().filter(|chain| !used.contains(chain));
        removed.extend(gone.map(Removed::Layer));
    }
    removed
}

/// Deletes images removed by force that nothing holds any more; only `id`, or all of them. Blocks on the disk.
pub(crate) fn delete_unheld(shelf: &Arc<Shelf>, id: Option<&ImageId>) -> Result<(), FileError> {
    let index = shelf.index();
    let removed = index.images.iter().filter(|(known, r)| r.is_removed && id.is_none_or(|id| id == *known));
    let gone: Vec<ImageId> =
        removed.map(|(id, _)| id.clone()).filter(|id| shelf.holders(id).is_empty()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    shelf.commit(|index: &mut Index| -> Result<(), FileError> {
        for id in &gone {
            // It may have been pulled again meanwhile.
            if index.images.get(id).is_some_and(|record| record.is_removed) {
                index.images.remove(id);
            }
        }
        Ok(())
    })?;
    shelf.collect();
    Ok(())
}

/// Gives an image a further name; the image. Blocks on the disk.
pub(crate) fn tag(shelf: &Shelf, source: &str, target: &str) -> Result<ImageId, crate::TagError> {
    let refused = |text: String| crate::TagError::InvalidReference(text);
    let target = Reference::parse(target).map_err(|e| refused(e.to_string()))?;
    if target.digest.is_some() {
        // Source: moby, `api/server/router/image`, `postImagesTag`.
        return Err(refused("refusing to create a tag with a digest reference".to_owned()));
    }
    let target = target.with_default_tag().canonical();
    shelf.commit(|index: &mut Index| -> Result<ImageId, crate::TagError> {
        let (id, _) = find(index, source).map_err(crate::TagError::from)?;
        index.names.insert(target, id.clone());
        let record = index.images.get_mut(&id);
        let missing = || LookupError::NotFound { reference: source.to_owned() };
        record.ok_or_else(missing)?.tagged = crate::shelf::now();
        Ok(id)
    })
}
