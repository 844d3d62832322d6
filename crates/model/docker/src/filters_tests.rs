//! Tests of the `filters` query: both forms, matching, refusals.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::filters::Filters;

fn read(text: &str) -> Filters {
    Filters::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn both_forms_say_the_same() {
    let new = read(r#"{"label":{"a=b":true,"c":true},"name":{"x":true}}"#);
    let old = read(r#"{"label":["a=b","c"],"name":["x"]}"#);
    assert_eq!(new, old);
    assert_eq!(new.get("label").collect::<Vec<_>>(), ["a=b", "c"]);
    assert!(
        read("").is_empty()
            && read("{}").is_empty()
            && read("null").is_empty()
            && read(r#"{"a":[]}"#).is_empty()
    );
    for bad in ["[]", "x", r#"{"a":1}"#, r#"{"a":"b"}"#, "{"] {
        assert_eq!(Filters::parse(bad).unwrap_err().to_string(), "invalid filter", "{bad}");
    }
}

#[test]
fn names_match_exactly_by_prefix_or_by_pattern() {
    let filters = read(r#"{"name":["web","^db-[0-9]$"]}"#);
    assert!(filters.matches_exactly("name", "web") && !filters.matches_exactly("name", "web1"));
    assert!(filters.matches_prefix("name", "web1") && !filters.matches_prefix("name", "aweb"));
    assert!(filters.matches_pattern("name", "aweb1") && filters.matches_pattern("name", "db-7"));
    assert!(!filters.matches_pattern("name", "db-77"));
    assert!(filters.matches_exactly("other", "anything"));
}

#[test]
fn every_label_must_match() {
    let labels = BTreeMap::from([("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())]);
    let check = |filter: &str, expect: bool| {
        assert_eq!(read(filter).matches_labels("label", &labels), expect, "{filter}")
    };
    check(r#"{"label":["a"]}"#, true);
    check(r#"{"label":["a=b=c","d"]}"#, true);
    check(r#"{"label":["a=b"]}"#, false);
    check(r#"{"label":["a","x"]}"#, false);
    check(r#"{"label":["d="]}"#, true);
}

#[test]
fn refusals_are_in_dockers_words() {
    let filters = read(r#"{"dangling":["maybe"],"status":["odd"]}"#);
    assert_eq!(filters.validate(&["status"]).unwrap_err().to_string(), "invalid filter 'dangling'");
    assert_eq!(filters.boolean("dangling").unwrap_err().to_string(), "invalid filter 'dangling=[maybe]'");
    assert_eq!(
        filters.validate_values("status", &["running"]).unwrap_err().to_string(),
        "invalid filter 'status=odd'"
    );
    let roles = read(r#"{"role":["","Manager"]}"#);
    let refused = roles.validate_swarm_values("role", &["manager"]).unwrap_err();
    assert_eq!(refused.to_string(), "Invalid role filter: 'Manager'");
    assert_eq!(roles.validate_swarm_values("role", &["Manager"]), Ok(()));
    let both = read(r#"{"dangling":{"true":true,"0":true}}"#);
    assert_eq!(both.boolean("dangling").unwrap_err().to_string(), "invalid filter 'dangling=[0 true]'");
    assert_eq!(read(r#"{"dangling":["1"]}"#).boolean("dangling"), Ok(Some(true)));
}

proptest! {
    #[test]
    fn a_written_query_reads_back(fields in proptest::collection::btree_map("[a-z]{1,6}", proptest::collection::btree_set("\\PC{0,8}", 1..4), 0..4)) {
        let mut filters = Filters::default();
        for (field, values) in &fields {
            values.iter().for_each(|value| filters.add(field, value));
        }
        prop_assert_eq!(read(&filters.to_query()), filters);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = Filters::parse(&text);
    }
}
