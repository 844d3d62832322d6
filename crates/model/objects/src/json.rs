//! How the objects read and write Docker's JSON.
//!
//! In: the field lists of the objects. Out: serde implementations that tolerate missing and `null` fields as Go does,
//! and leave out what Go's `omitempty` leaves out. Never renames a field silently: odd names carry a `rename`.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default, as Go's decoder does.
pub(crate) fn null_as_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(reader)?.unwrap_or_default())
}

/// Whether Go's `omitempty` would leave the value out.
pub(crate) fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares structs in Docker's JSON form.
///
/// Field names become PascalCase. Fields are left out when empty, those of the `always { … }` block at the end are
/// always written. Missing and `null` fields read as the default.
macro_rules! shape {
    ($(
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[$field_about:meta])* pub $field:ident : $kind:ty, )*
            $( always { $( $(#[$kept_about:meta])* pub $kept:ident : $kept_kind:ty, )* } )?
        }
    )*) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$field_about])*
                #[serde(
                    deserialize_with = "crate::json::null_as_default",
                    skip_serializing_if = "crate::json::is_empty"
                )]
                pub $field: $kind,
            )*
            $( $(
                $(#[$kept_about])*
                #[serde(deserialize_with = "crate::json::null_as_default")]
                pub $kept: $kept_kind,
            )* )?
        }
    )* };
}
pub(crate) use shape;

/// An object as the API shows it: without what only the managers know.
pub(crate) fn api_value<T: serde::Serialize>(object: &T) -> serde_json::Value {
    let mut value = serde_json::to_value(object).expect("objects have text keys and no failing serialisers");
    if let Some(fields) = value.as_object_mut() {
        fields.remove("Internal");
    }
    value
}
