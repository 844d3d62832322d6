//! Services as the API shows them, ready to be sent: the text of each is made once for each version of it.
//!
//! In: services of the replica. Out: JSON. A version of an object is written once, so a text that was kept is what would be
//! made again. Never decides who may see it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use objects::{Service, ServiceId};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// Services whose text is kept. chosen: some megabytes; what is beyond is made each time.
const KEPT: usize = 8192;

/// An object as the API shows it: JSON that is ready.
#[derive(Clone, Debug)]
pub struct Shown(Arc<RawValue>);

impl Shown {
    /// Of what serialises as the API shows it.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        let text = to_raw_value(value).expect("objects have nothing that JSON has not");
        Self(text.into())
    }

    /// Its JSON.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The object with one more field.
    pub(crate) fn with(&self, name: &str, value: &Value) -> Self {
        let mut more = Map::new();
        more.insert(name.to_owned(), value.clone());
        let more = Value::Object(more).to_string();
        let (own, more) = (self.text().trim_end_matches('}'), more.trim_start_matches('{'));
        // Braces of what it ends with, but for its own.
        let braces = "}".repeat(self.text().len() - own.len() - 1);
        let text = format!("{own}{braces},{more}");
        let text = RawValue::from_string(text).expect("a field more makes JSON of JSON");
        Self(text.into())
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The texts that are kept.
#[derive(Default)]
pub(crate) struct Texts {
    services: Mutex<HashMap<ServiceId, (u64, Shown)>>,
}

impl Texts {
    fn services(&self) -> MutexGuard<'_, HashMap<ServiceId, (u64, Shown)>> {
        self.services.lock().expect("nothing panics while holding it")
    }

    /// A service as the API shows it.
    pub(crate) fn service(&self, service: &Service) -> Shown {
        text_of(&mut self.services(), service)
    }

    /// Each of these services; `all` is how many there are.
    pub(crate) fn each<'s>(
        &self,
        services: impl Iterator<Item = &'s Arc<Service>>,
        all: usize,
        is_there: impl Fn(&ServiceId) -> bool,
    ) -> Vec<Shown> {
        let mut kept = self.services();
        if kept.len() > all {
            kept.retain(|id, _| is_there(id));
        }
        services.map(|service| text_of(&mut kept, service)).collect()
    }
}

fn text_of(kept: &mut HashMap<ServiceId, (u64, Shown)>, service: &Service) -> Shown {
    let version = service.meta.version.index;
    let is_full = kept.len() >= KEPT;
    match kept.entry(service.id.clone()) {
        Entry::Occupied(entry) if entry.get().0 == version => entry.get().1.clone(),
        Entry::Vacant(_) if is_full => Shown::of(&service.to_api()),
        entry => entry.insert_entry((version, Shown::of(&service.to_api()))).get().1.clone(),
    }
}

#[cfg(test)]
mod tests {
    use objects::{ServiceSpec, Version};
    use serde_json::json;

    use super::*;

    fn service(id: &str, version: u64) -> Service {
        let spec = ServiceSpec { name: format!("{id}-{version}"), ..ServiceSpec::default() };
        let mut service = Service::new(id.into(), spec);
        service.meta.version = Version { index: version };
        service
    }

    #[test]
    fn a_text_is_the_services_of_its_version() {
        let texts = Texts::default();
        for service in [service("a", 1), service("a", 1), service("a", 2), service("b", 2), service("a", 3)] {
            let shown: Value = serde_json::from_str(texts.service(&service).text()).unwrap();
            assert_eq!(shown, service.to_api());
        }
        let first = texts.service(&service("a", 3));
        assert!(Arc::ptr_eq(&first.0, &texts.service(&service("a", 3)).0), "it is made once");
    }

    #[test]
    fn texts_of_services_that_are_gone_are_forgotten() {
        let texts = Texts::default();
        let all: Vec<Arc<Service>> = ["a", "b", "c"].map(|id| Arc::new(service(id, 1))).into();
        assert_eq!(texts.each(all.iter(), 3, |_| true).len(), 3);
        assert_eq!(texts.each(all[..1].iter(), 1, |id| *id == "a".into()).len(), 1);
        assert_eq!(texts.services().len(), 1);
    }

    #[test]
    fn a_field_more_changes_no_other() {
        for value in [json!({"A": {"B": {}}}), json!({"A": "}"}), json!({"A": [{}]})] {
            let mut expect = value.clone();
            expect["More"] = json!({"N": 1});
            let shown = Shown::of(&value).with("More", &json!({"N": 1}));
            assert_eq!(serde_json::from_str::<Value>(shown.text()).unwrap(), expect);
        }
    }
}
