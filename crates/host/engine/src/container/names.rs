//! Names of containers: which are allowed.
//!
//! In: a wanted name. Out: the name without slash, or Docker's refusal. Never knows which are taken, and makes none up:
//! that is `objects::random_name`.

use crate::error::InvalidRequest;

/// The shortest name Docker allows.
const SHORTEST: usize = 2;

/// Takes the name a client gave; the leading slash is not part of it.
///
/// Source of rule and text: moby, `daemon/names.go`.
pub(crate) fn check(name: &str) -> Result<String, InvalidRequest> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = bare.starts_with(|c: char| c.is_ascii_alphanumeric());
    if bare.len() >= SHORTEST && starts_well && bare.chars().all(is_word) {
        return Ok(bare.to_owned());
    }
    Err(InvalidRequest(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "/web", "0a", "a.b-c_d", "A1"] {
            assert_eq!(check(good).unwrap(), good.trim_start_matches('/'), "{good}");
        }
        for bad in ["", "/", "a", "-ab", "_ab", ".ab", "a b", "a/b", "ä1", "ab\n"] {
            let text = check(bad).unwrap_err().to_string();
            assert_eq!(
                text,
                format!("Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
    }

    #[test]
    fn invented_names_are_allowed_names() {
        for byte in 0..=255u8 {
            let name = objects::random_name([byte, byte.wrapping_mul(7), byte], u32::from(byte % 4));
            assert_eq!(check(&name).unwrap(), name);
        }
    }
}
