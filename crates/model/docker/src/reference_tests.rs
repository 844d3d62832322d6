//! Tests of image references: a table from distribution's own tests, and properties.

use proptest::prelude::*;

use crate::reference::{Reference, ReferenceError};

fn check(text: &str, canonical: &str, familiar: &str) {
    let parsed = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!((parsed.canonical().as_str(), parsed.familiar().as_str()), (canonical, familiar), "{text}");
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_are_normalised_as_docker_does() {
    check("nginx", "docker.io/library/nginx", "nginx");
    check("nginx:1.2", "docker.io/library/nginx:1.2", "nginx:1.2");
    check("a/b", "docker.io/a/b", "a/b");
    check("library/nginx", "docker.io/library/nginx", "nginx");
    check("docker.io/nginx", "docker.io/library/nginx", "nginx");
    check("index.docker.io/nginx:x", "docker.io/library/nginx:x", "nginx:x");
    check("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b");
    check("ghcr.io/a/b:v1", "ghcr.io/a/b:v1", "ghcr.io/a/b:v1");
    check("localhost/a", "localhost/a", "localhost/a");
    check("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b");
    check("127.0.0.1:5000/a", "127.0.0.1:5000/a", "127.0.0.1:5000/a");
    check("[::1]:5000/a/b", "[::1]:5000/a/b", "[::1]:5000/a/b");
    check("Host/a", "Host/a", "Host/a");
    check("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f", "a__b/c-d--e.f");
    check(
        &format!("nginx:1@{DIGEST}"),
        &format!("docker.io/library/nginx:1@{DIGEST}"),
        &format!("nginx:1@{DIGEST}"),
    );
}

fn refuse(text: &str, error: &str) {
    assert_eq!(Reference::parse(text).map_err(|error| error.to_string()), Err(error.to_owned()), "{text}");
}

#[test]
fn what_is_no_name_is_refused_in_dockers_words() {
    let format = "invalid reference format";
    for bad in [
        "",
        ":",
        "/",
        "a//b",
        "a:",
        "a@",
        "-a",
        "a-",
        "a_",
        "a...b",
        "a___b",
        "a b",
        "a:b:c",
        "a:-x",
        "a/",
        "https://x/y",
    ] {
        refuse(bad, format);
    }
    refuse("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase");
    refuse("a/B:1", "invalid reference format: repository name (a/B) must be lowercase");
    let id = "a".repeat(64);
    refuse(&id, &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"));
    refuse(&format!("x/{}", "a".repeat(256)), "repository name must not be more than 255 characters");
    refuse("a@sha256:abc", format);
    refuse(&format!("a@sha1:{}", "0".repeat(40)), "unsupported digest algorithm");
    refuse(&format!("a@sha256:{}", "0".repeat(63)), "invalid checksum digest length");
    refuse(&format!("a:{}", "t".repeat(129)), format);
}

#[test]
fn a_default_tag_comes_only_where_nothing_is_said() {
    let with = |text: &str| Reference::parse(text).unwrap().with_default_tag().familiar();
    assert_eq!(with("nginx"), "nginx:latest");
    assert_eq!(with("nginx:1"), "nginx:1");
    assert_eq!(with(&format!("nginx@{DIGEST}")), format!("nginx@{DIGEST}"));
    assert!(matches!(Reference::parse("a@x"), Err(ReferenceError::Format)));
}

proptest! {
    #[test]
    fn both_forms_read_back_as_the_same_name(
        domain in proptest::option::of("[a-z]{1,5}\\.[a-z]{2,3}(:[0-9]{1,4})?"),
        path in "[a-z0-9]{1,5}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,5}){0,2}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,10}"),
    ) {
        let mut text = domain.map_or(String::new(), |domain| domain + "/") + &path;
        if let Some(tag) = tag {
            text = text + ":" + &tag;
        }
        let parsed = Reference::parse(&text).unwrap();
        prop_assert_eq!(&Reference::parse(&parsed.canonical()).unwrap(), &parsed);
        prop_assert_eq!(&Reference::parse(&parsed.familiar()).unwrap(), &parsed);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = Reference::parse(&text);
    }
}
