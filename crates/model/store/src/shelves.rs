//! A sorted map that is cheap to copy: entries lie on shelves, and a copy shares those that nobody changes.
//!
//! In and out: as a `BTreeMap` by text ids. Copying costs what the number of shelves costs; the first change of a shelf
//! after that copies this shelf. A manager copies the whole store for a snapshot while it goes on writing.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the ids of one shelf begin with: their first two bytes. Ids are random text of base 36: 1296 shelves at most.
type Label = [u8; 2];

/// A sorted map that is cheap to copy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shelves<K, V> {
    shelves: BTreeMap<Label, Arc<BTreeMap<K, V>>>,
    count: usize,
}

impl<K, V> Default for Shelves<K, V> {
    fn default() -> Self {
        Self { shelves: BTreeMap::new(), count: 0 }
    }
}

fn label(id: &str) -> Label {
    let mut bytes = id.bytes();
    [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)]
}

impl<K: Ord + Clone + Borrow<str>, V: Clone> Shelves<K, V> {
    pub(crate) fn get(&self, id: &str) -> Option<&V> {
        self.shelves.get(&label(id))?.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// All values, by id.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.shelves.values().flat_map(|shelf| shelf.values())
    }

    pub(crate) fn insert(&mut self, id: K, value: V) {
        let shelf = self.shelves.entry(label(id.borrow())).or_default();
        if Arc::make_mut(shelf).insert(id, value).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: &str) {
        let Some(shelf) = self.shelves.get_mut(&label(id)) else { return };
        let entries = Arc::make_mut(shelf);
        if entries.remove(id).is_some() {
            self.count -= 1;
        }
        if entries.is_empty() {
            self.shelves.remove(&label(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shelves_hold_what_one_map_holds(steps in prop::collection::vec(("[a-c]{0,3}", any::<bool>()), 0..60)) {
            let (mut shelves, mut map) = (Shelves::<String, usize>::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (id, is_added)) in steps.into_iter().enumerate() {
                if is_added {
                    shelves.insert(id.clone(), number);
                    map.insert(id.clone(), number);
                } else {
                    shelves.remove(&id);
                    map.remove(&id);
                }
                prop_assert!(shelves.values().eq(map.values()));
                prop_assert_eq!((shelves.len(), shelves.get(&id)), (map.len(), map.get(&id)));
                copies.push((shelves.clone(), map.clone()));
            }
            for (shelves, map) in copies {
                prop_assert!(shelves.values().eq(map.values()), "a copy changed with the original");
            }
        }
    }
}
