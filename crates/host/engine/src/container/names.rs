//! Names of containers: which are allowed, and new ones for containers that were given none.
//!
//! In: a wanted name, or random bytes. Out: the name without slash, or Docker's refusal. Never knows which are taken.

use crate::error::InvalidRequest;

/// Words of our own choosing; a name is `adjective_surname`.
const ADJECTIVES: [&str; 64] = [
    "amber", "ample", "azure", "balmy", "bright", "brisk", "calm", "candid", "cheerful", "clever", "cosy",
    "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "fair", "fancy", "fleet", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy", "hearty", "honest", "humble", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble",
    "noble", "patient", "placid", "plucky", "polite", "prompt", "proud", "quiet", "ready", "robust",
    "serene", "sharp", "sincere", "sober", "steady", "sunny", "tidy", "vivid", "warm", "witty",
];

/// People of science, bees and engineering.
const SURNAMES: [&str; 64] = [
    "abel",
    "agnesi",
    "ampere",
    "banach",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "born",
    "butler",
    "cantor",
    "carnot",
    "cauchy",
    "celsius",
    "curie",
    "dadant",
    "dirac",
    "doppler",
    "dzierzon",
    "einstein",
    "erdos",
    "euler",
    "faraday",
    "fermat",
    "fourier",
    "frisch",
    "galois",
    "gauss",
    "germain",
    "hamilton",
    "hilbert",
    "hooke",
    "huber",
    "huygens",
    "joule",
    "kepler",
    "kirchhoff",
    "lagrange",
    "langstroth",
    "laplace",
    "leibniz",
    "lindauer",
    "linnaeus",
    "lorentz",
    "mendel",
    "meitner",
    "napier",
    "neumann",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "seeley",
    "shannon",
    "swammerdam",
    "turing",
    "volta",
    "watt",
    "weyl",
    "wren",
];

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

/// A name from three random bytes; the `attempt`-th try for the same container gets a digit appended.
pub(crate) fn invent(random: [u8; 3], attempt: u32) -> String {
    let pick = |list: &[&'static str; 64], byte: u8| list[usize::from(byte) % list.len()];
    let base = format!("{}_{}", pick(&ADJECTIVES, random[0]), pick(&SURNAMES, random[1]));
    if attempt == 0 { base } else { format!("{base}{}", u32::from(random[2] % 10) + 10 * (attempt - 1)) }
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
            let name = invent([byte, byte.wrapping_mul(7), byte], u32::from(byte % 4));
            assert_eq!(check(&name).unwrap(), name);
        }
    }

    #[test]
    fn every_word_is_there_once() {
        for list in [ADJECTIVES, SURNAMES] {
            let unique: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
        }
    }
}
