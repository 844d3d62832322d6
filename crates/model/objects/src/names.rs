//! Closed lists of words, such as `on-failure`, as enums.
//!
//! In: the variants with their words. Out: parsing, printing and serde. The first variant is what an empty word means.
//! Never accepts an unknown word: the error says which list it is not on, in Docker's wording.

/// A word that is on none of the lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{list} {word:?}")]
pub struct UnknownWord {
    /// What was wrong, for example `invalid RestartCondition:`.
    pub list: &'static str,
    /// The word that was found.
    pub word: String,
}

/// Declares an enum whose variants are words in JSON. An empty word is the default.
macro_rules! words {
    ($(
        $(#[$about:meta])*
        pub enum $name:ident ($unknown:literal) {
            $( $(#[$variant_about:meta])* $variant:ident = $word:literal, )+
        }
    )*) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
        pub enum $name { $( $(#[$variant_about])* $variant, )+ }

        impl $name {
            /// The word that Docker's JSON uses.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::names::UnknownWord;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    "" => Ok(Self::default()),
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(crate::names::UnknownWord { list: $unknown, word: word.to_owned() }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let word = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}
pub(crate) use words;
