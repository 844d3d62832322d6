//! Words as Go prints them: moby's histories hold them, and with them the keys of the cache.
//!
//! In: values. Out: texts that are the same as Go's `%q` and `%v`.

use docker::HealthcheckConfig;
use docker::units::format_duration;

/// `%q` of a text.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `%q` of a list.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// `%q` of a health check.
pub(crate) fn healthcheck(check: &HealthcheckConfig) -> String {
    let time = |nanos| quoted(&format_duration(nanos));
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let retries = match retries {
        c if c.is_control() => format!("'\\x{:02x}'", u32::from(c)),
        c => format!("'{c}'"),
    };
    format!(
        "&{{{} {} {} {} {} {retries}}}",
        quoted_list(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
    )
}

/// A path without dots, absolute; a relative one begins at `base`.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        assert_eq!(quoted_list(&["a b".to_owned(), "\"\\\n".to_owned()]), r#"["a b" "\"\\\n"]"#);
        let check =
            HealthcheckConfig { test: vec!["NONE".to_owned()], retries: 3, ..HealthcheckConfig::default() };
        assert_eq!(healthcheck(&check), r#"&{["NONE"] "0s" "0s" "0s" "0s" '\x03'}"#);
    }

    #[test]
    fn paths_are_joined_without_dots() {
        for (base, path, expect) in [
            ("", "a", "/a"),
            ("/a", "b/../c", "/a/c"),
            ("/a", "/b/", "/b"),
            ("/a", "../..", "/"),
            ("/a", ".", "/a"),
        ] {
            assert_eq!(absolute(base, path), expect, "{base} {path}");
        }
    }
}
