//! The API version of a request: `1.24` to `1.51`.
//!
//! In: the `/v1.xx` prefix of a path. Out: an ordered number. Never decides what a version means for a field: each
//! handler does.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// 1 for every known version.
    pub major: u16,
    /// 24 to 51 for what we serve.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest we serve. Source: docker 28.
    pub const MIN: Self = Self::v1(24);
    /// The newest we serve, and what a request without a prefix gets. Source: docker 28.5.
    pub const MAX: Self = Self::v1(51);

    /// Version 1.`minor`.
    pub const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is not `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version")]
pub struct InvalidApiVersion;

impl FromStr for ApiVersion {
    type Err = InvalidApiVersion;
    fn from_str(text: &str) -> Result<Self, InvalidApiVersion> {
        let (major, minor) = text.split_once('.').ok_or(InvalidApiVersion)?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse().map_err(|_| InvalidApiVersion) } else { Err(InvalidApiVersion) }
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_not_by_text() {
        assert!(ApiVersion::v1(9) < ApiVersion::v1(24));
        assert_eq!("1.44".parse(), Ok(ApiVersion::v1(44)));
        for bad in ["", "1", "1.", ".1", "1.x", "v1.2", "1.-2", "1.2.3", "1.99999999"] {
            assert_eq!(bad.parse::<ApiVersion>(), Err(InvalidApiVersion), "{bad}");
        }
    }
}
