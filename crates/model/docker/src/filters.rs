//! The `filters` query of list, prune and event routes.
//!
//! In: `{"label":{"a=b":true}}` (new) or `{"label":["a=b"]}` (old). Out: questions such as "does this name match".
//! Never knows which filters a route accepts: the route says so to [`Filters::validate`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::pattern::Pattern;

/// Values per field. No field, no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    fields: BTreeMap<String, BTreeSet<String>>,
}

/// Why a filter is refused, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not one of the two JSON forms.
    #[error("invalid filter")]
    Format,
    /// The route knows no such field.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// The value is not one the field accepts.
    #[error("invalid filter '{field}={value}'")]
    Value {
        /// Name of the field.
        field: String,
        /// In Go's list notation: `[maybe]`.
        value: String,
    },
    /// The same, as the swarm's lists say it. Source: moby, `daemon/cluster/filters.go`.
    #[error("Invalid {field} filter: '{value}'")]
    OfSwarm {
        /// Name of the field.
        field: &'static str,
        /// The value.
        value: String,
    },
}

impl Filters {
    /// Reads the query value; empty is no restriction.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            Map(BTreeMap<String, bool>),
            List(Vec<String>),
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let fields: Option<BTreeMap<String, Option<Values>>> =
            serde_json::from_str(text).map_err(|_| FilterError::Format)?;
        let mut filters = Self::default();
        for (field, values) in fields.unwrap_or_default() {
            let values = match values {
                None => continue,
                Some(Values::Map(map)) => map.into_keys().collect(),
                Some(Values::List(list)) => list.into_iter().collect::<BTreeSet<_>>(),
            };
            filters.fields.entry(field).or_default().extend(values);
        }
        filters.fields.retain(|_, values| !values.is_empty());
        Ok(filters)
    }

    /// The form current clients send.
    pub fn to_query(&self) -> String {
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .fields
            .iter()
            .map(|(field, values)| {
                (field.as_str(), values.iter().map(|value| (value.as_str(), true)).collect())
            })
            .collect();
        serde_json::to_string(&map).expect("maps of strings always serialise")
    }

    /// Adds one value.
    pub fn add(&mut self, field: impl Into<String>, value: impl Into<String>) {
        self.fields.entry(field.into()).or_default().insert(value.into());
    }

    /// Nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the field restricts anything.
    pub fn contains(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// The values of a field, sorted.
    pub fn get(&self, field: &str) -> impl Iterator<Item = &str> {
        self.fields.get(field).into_iter().flatten().map(String::as_str)
    }

    /// Refuses fields the route does not know.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), FilterError> {
        match self.fields.keys().find(|field| !accepted.contains(&field.as_str())) {
            Some(field) => Err(FilterError::Unknown(field.clone())),
            None => Ok(()),
        }
    }

    /// One of the values is `source`, or there is no such field.
    pub fn matches_exactly(&self, field: &str, source: &str) -> bool {
        self.fields.get(field).is_none_or(|values| values.contains(source))
    }

    /// One of the values is a prefix of `source`, or there is no such field. Source: moby, `Args.FuzzyMatch`.
    pub fn matches_prefix(&self, field: &str, source: &str) -> bool {
        self.fields
            .get(field)
            .is_none_or(|values| values.iter().any(|value| source.starts_with(value.as_str())))
    }

    /// One of the values is a pattern found in `source`, or there is no such field. Source: moby, `Args.Match`.
    pub fn matches_pattern(&self, field: &str, source: &str) -> bool {
        self.fields.get(field).is_none_or(|values| {
            values.contains(source)
                || values.iter().any(|value| Pattern::parse(value).is_some_and(|it| it.is_found_in(source)))
        })
    }

    /// Every value `key` or `key=value` is among `labels`, or there is no such field. Source: moby, `MatchKVList`.
    pub fn matches_labels(&self, field: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(field).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The field as a boolean; `None` if it is absent.
    pub fn boolean(&self, field: &str) -> Result<Option<bool>, FilterError> {
        let Some(values) = self.fields.get(field) else { return Ok(None) };
        let yes = values.contains("1") || values.contains("true");
        let no = values.contains("0") || values.contains("false");
        match (values.len(), yes, no) {
            (1, true, false) => Ok(Some(true)),
            (1, false, true) => Ok(Some(false)),
            _ => {
                let list: Vec<&str> = values.iter().map(String::as_str).collect();
                Err(FilterError::Value { field: field.to_owned(), value: format!("[{}]", list.join(" ")) })
            }
        }
    }

    /// Refuses values other than these, in Docker's words.
    pub fn validate_values(&self, field: &str, accepted: &[&str]) -> Result<(), FilterError> {
        match self.get(field).find(|value| !accepted.contains(value)) {
            Some(value) => Err(FilterError::Value { field: field.to_owned(), value: value.to_owned() }),
            None => Ok(()),
        }
    }

    /// The same for the swarm's nodes and tasks: an empty value restricts nothing, and the words are others.
    pub fn validate_swarm_values(&self, field: &'static str, accepted: &[&str]) -> Result<(), FilterError> {
        match self.get(field).find(|value| !value.is_empty() && !accepted.contains(value)) {
            Some(value) => Err(FilterError::OfSwarm { field, value: value.to_owned() }),
            None => Ok(()),
        }
    }
}
