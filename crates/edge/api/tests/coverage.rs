//! Keeps `docs/api-coverage.md` what the route table says.
//!
//! In: the route table and the file. Out: a failure when the file is stale. Writes the file only when `SKEP_WRITE_DOCS` is 1.

use std::path::Path;

/// The variable that asks for the file to be written.
const WRITE_DOCS: &str = "SKEP_WRITE_DOCS";

#[test]
fn the_coverage_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/api-coverage.md");
    let expect = api::coverage_document();
    if std::env::var_os(WRITE_DOCS).is_some_and(|value| value == "1") {
        std::fs::write(&path, &expect).expect("docs/api-coverage.md can be written");
    }
    // A file that is missing is as stale as an empty one.
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let missing = expect.lines().find(|line| !found.lines().any(|known| known == *line));
    assert!(
        found == expect,
        "docs/api-coverage.md is stale, run `make docs`; first missing line: {missing:?}"
    );
}
