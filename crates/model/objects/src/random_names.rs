//! Names for containers and services that were given none.
//!
//! In: random bytes. Out: `adjective_surname`. Never draws randomness itself, and never knows which names are taken.

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

/// A name from three random bytes, good for a container and for a service.
///
/// `attempt` counts from 0 the names already tried for the same object; later ones get a growing number appended, so
/// that a free one is found at last.
pub fn random_name(random: [u8; 3], attempt: u32) -> String {
    let pick = |list: &[&'static str; 64], byte: u8| list[usize::from(byte) % list.len()];
    let base = format!("{}_{}", pick(&ADJECTIVES, random[0]), pick(&SURNAMES, random[1]));
    if attempt == 0 { base } else { format!("{base}{}", u32::from(random[2] % 10) + 10 * (attempt - 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_once() {
        for list in [ADJECTIVES, SURNAMES] {
            let unique: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
        }
    }
}
