//! The query string: Docker's habits for booleans, numbers, lists and filters.
//!
//! In: the raw query. Out: typed values, or a 400. Never decides which keys exist: unknown ones are ignored, as by
//! dockerd.

use docker::Filters;

use crate::error::ApiError;
use crate::route::decode;

/// Decoded pairs in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Result<Self, ApiError> {
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            Some((decode(key, true)?, decode(value, true)?))
        };
        let bad = |text: &str| ApiError::invalid(format!("invalid query: bad escape in \"{text}\""));
        let pairs = raw.split('&').filter(|text| !text.is_empty());
        pairs.map(|text| pair(text).ok_or_else(|| bad(text))).collect::<Result<_, _>>().map(Self)
    }

    /// The first value; a key without `=` has an empty one.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value, or an empty text.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// All values of a key that may be repeated.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Source: moby, `api/server/httputils/form.go` `BoolValue`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.text(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A whole number; `None` where the key is missing or empty.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let value = self.text(key);
        if value.is_empty() {
            return Ok(None);
        }
        // The wording of Go's strconv, which clients show as it is.
        let failed = |_| ApiError::invalid(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"));
        value.parse().map(Some).map_err(failed)
    }

    /// The `filters` key.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        Ok(Filters::parse(self.text("filters"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_read_as_docker_reads_them() {
        let query = Query::parse("a=1&b=true&c=0&d=no&e=&f=None&g&h=yes&i=%20FALSE").unwrap();
        let set: Vec<&str> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "z"]
            .into_iter()
            .filter(|key| query.flag(key))
            .collect();
        assert_eq!(set, ["a", "b", "h"]);
    }

    #[test]
    fn numbers_and_escapes_are_checked() {
        assert_eq!(Query::parse("t=-1").unwrap().integer("t").unwrap(), Some(-1));
        assert_eq!(Query::parse("t=").unwrap().integer("t").unwrap(), None);
        assert!(Query::parse("t=x").unwrap().integer("t").is_err());
        assert!(Query::parse("t=%zz").is_err());
        let query = Query::parse("names=a&names=b+c").unwrap();
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a", "b c"]);
    }
}
