//! Decides which of several builds of an image fits this machine.
//!
//! In: a wanted platform and what an index offers. Out: a rank. Never reads the hardware except the
//! architecture this program was compiled for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system and processor an image is built for; prints as `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the operating system, `linux`.
    pub os: String,
    /// Go's name of the architecture, `amd64`.
    pub architecture: String,
    /// The variant of the architecture, `v8`; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// The text is no `os[/architecture[/variant]]`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}: cannot parse platform specifier: invalid argument")]
pub struct ParsePlatformError(pub String);

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform::new("linux", architecture, variant)
    }

    /// A platform in normal form: names as in `uname -m` become Go's, `arm64` gets no redundant `v8`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), ""),
            "aarch64" => ("arm64".to_owned(), ""),
            "armhf" => ("arm".to_owned(), "v7"),
            "armel" => ("arm".to_owned(), "v6"),
            "i386" => ("386".to_owned(), ""),
            other => (other.to_owned(), ""),
        };
        let variant = match (architecture.as_str(), if variant.is_empty() { implied } else { variant }) {
            ("arm64", "8" | "v8") | ("amd64", "v1") => "",
            ("arm", "7") | ("arm", "") => "v7",
            ("arm", "6") => "v6",
            ("arm", "5") => "v5",
            (_, other) => other,
        };
        Platform { os: os.to_ascii_lowercase(), architecture, variant: variant.to_owned() }
    }

    /// How well an image for `offered` runs where `self` is wanted: 0 is exact, higher is worse, `None` not at
    /// all. A machine of a later `arm` or `amd64` variant also runs the earlier ones.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        let wanted = Platform::new(&self.os, &self.architecture, &self.variant);
        let offered = Platform::new(&offered.os, &offered.architecture, &offered.variant);
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        if wanted.variant == offered.variant {
            return Some(0);
        }
        let (have, need) = (variant_number(&wanted)?, variant_number(&offered)?);
        have.checked_sub(need)
    }
}

fn variant_number(platform: &Platform) -> Option<u32> {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("amd64", "") => Some(1),
        ("arm64", "") => Some(8),
        (_, variant) => variant.strip_prefix('v')?.parse().ok(),
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Platform, ParsePlatformError> {
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| is_name(part)) {
            return Err(ParsePlatformError(text.to_owned()));
        }
        let host = Platform::host();
        Ok(match parts[..] {
            [os, architecture, variant] => Platform::new(os, architecture, variant),
            [os, architecture] => Platform::new(os, architecture, ""),
            [one] if one.eq_ignore_ascii_case("linux") => host,
            // A lone architecture means Linux on it, as in containerd's parser.
            [one] => Platform::new("linux", one, ""),
            _ => return Err(ParsePlatformError(text.to_owned())),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, offered: &str, expect: Option<u32>) {
        let (wanted, offered): (Platform, Platform) = (wanted.parse().unwrap(), offered.parse().unwrap());
        assert_eq!(wanted.rank(&offered), expect, "{wanted} on {offered}");
    }

    #[test]
    fn exact_fits_best_and_earlier_variants_also_run() {
        check("linux/amd64", "linux/amd64", Some(0));
        check("linux/amd64", "linux/x86_64", Some(0));
        check("linux/arm64", "linux/arm64/v8", Some(0));
        check("linux/arm/v7", "linux/arm/v6", Some(1));
        check("linux/arm/v6", "linux/arm/v7", None);
        check("linux/amd64", "linux/amd64/v3", None);
        check("linux/amd64", "linux/arm64", None);
        check("linux/amd64", "windows/amd64", None);
    }

    #[test]
    fn nonsense_is_no_platform() {
        for bad in ["", "/", "linux/", "a/b/c/d", "li nux/amd64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
