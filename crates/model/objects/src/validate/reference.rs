//! Tells whether a text can name an image: `[domain[:port]/]path[:tag][@digest]`.
//!
//! Source of the grammar: distribution/reference, `reference.go`. Never normalises: that is the engine's.

/// Longest path with domain. Source: distribution/reference, `NameTotalLengthMax`.
const MAX_PATH: usize = 255;
/// Longest tag. Source: distribution/reference, `TagRegexp`.
const MAX_TAG: usize = 128;

/// Whether `text` can name an image.
pub fn is_image_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
        None => (rest, None),
    };
    is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((domain, path)) if domain.contains(['.', ':']) || domain == "localhost" || has_upper(domain) => {
            if !is_domain(domain) {
                return false;
            }
            path
        }
        _ => name,
    };
    // 64 hexadecimal digits are an image's id, which is no name.
    let is_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    !is_id && path.len() <= MAX_PATH && path.split('/').all(is_component)
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        let edges = [label.bytes().next(), label.bytes().next_back()];
        edges.iter().all(|edge| edge.is_some_and(|b| b.is_ascii_alphanumeric()))
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (is_v6 || host.split('.').all(is_label)) && port.is_none_or(is_port)
}

/// Lower-case alphanumerics with single `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_letter(*first) || !is_letter(*last) {
        return false;
    }
    bytes
        .split(|b| is_letter(*b))
        .filter(|gap| !gap.is_empty())
        .all(|gap| matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let is_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    algorithm.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-_".contains(&b))
        && is_hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_follow_the_grammar() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for good in [
            "nginx",
            "nginx:1.27-alpine",
            "library/nginx",
            "localhost:5000/a/b:t",
            "127.0.0.1:5000/x",
            "[::1]:5000/x",
            "a__b/c-d.e",
            "Host/x",
            &digest,
        ] {
            assert!(is_image_reference(good), "{good}");
        }
        let id = "a".repeat(64);
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx::x",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a:b c",
            "a@sha256:1",
            "a@b",
            &id,
        ] {
            assert!(!is_image_reference(bad), "{bad}");
        }
    }
}
