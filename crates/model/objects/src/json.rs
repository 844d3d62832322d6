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
/// always written. Missing and `null` fields read as the default. Debug output shows nothing of the fields of a
/// `hidden { … }` block: keys and tokens.
macro_rules! shape {
    ($(
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[$field_about:meta])* pub $field:ident : $kind:ty, )*
            $( hidden { $( $(#[$hidden_about:meta])* pub $hidden:ident : $hidden_kind:ty, )* } )?
            $( always { $( $(#[$kept_about:meta])* pub $kept:ident : $kept_kind:ty, )* } )?
        }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
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
                $(#[$hidden_about])*
                #[serde(
                    deserialize_with = "crate::json::null_as_default",
                    skip_serializing_if = "crate::json::is_empty"
                )]
                pub $hidden: $hidden_kind,
            )* )?
            $( $(
                $(#[$kept_about])*
                #[serde(deserialize_with = "crate::json::null_as_default")]
                pub $kept: $kept_kind,
            )* )?
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = out.debug_struct(stringify!($name));
                $( shown.field(stringify!($field), &self.$field); )*
                $( $( shown.field(stringify!($hidden), &crate::json::Veil::over(&self.$hidden)); )* )?
                $( $( shown.field(stringify!($kept), &self.$kept); )* )?
                shown.finish()
            }
        }
    )* };
}
pub(crate) use shape;

/// What debug output shows of a field that nobody is to read there.
pub(crate) struct Veil {
    is_empty: bool,
}

impl Veil {
    pub(crate) fn over<T: Default + PartialEq>(value: &T) -> Self {
        Self { is_empty: is_empty(value) }
    }
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.is_empty { "(none)" } else { "(hidden)" })
    }
}

/// Declares an object of the store: as [`shape`], with an id and with version and times, which Docker's JSON has among
/// the fields of the object.
///
/// Reading goes through a struct with flat fields: serde's `flatten` would keep every field in a buffer first, and managers
/// read objects from their log all day.
macro_rules! object {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[$field_about:meta])* pub $field:ident : $kind:ty, )*
            always {
                $(#[$id_about:meta])*
                pub id : $id:ty,
                $( $(#[$kept_about:meta])* pub $kept:ident : $kept_kind:ty, )*
            }
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $name {
            $(
                $(#[$field_about])*
                #[serde(skip_serializing_if = "crate::json::is_empty")]
                pub $field: $kind,
            )*
            $(#[$id_about])*
            pub id: $id,
            /// Version and times.
            #[serde(flatten)]
            pub meta: crate::Meta,
            $( $(#[$kept_about])* pub $kept: $kept_kind, )*
        }

        const _: () = {
            /// The object as it is read.
            #[derive(Default, serde::Deserialize)]
            #[serde(rename_all = "PascalCase", default)]
            struct Flat {
                $(
                    $(#[$field_about])*
                    #[serde(deserialize_with = "crate::json::null_as_default")]
                    $field: $kind,
                )*
                $(#[$id_about])*
                #[serde(deserialize_with = "crate::json::null_as_default")]
                id: $id,
                #[serde(deserialize_with = "crate::json::null_as_default")]
                version: crate::Version,
                #[serde(deserialize_with = "crate::json::null_as_default")]
                created_at: crate::Timestamp,
                #[serde(deserialize_with = "crate::json::null_as_default")]
                updated_at: crate::Timestamp,
                $(
                    $(#[$kept_about])*
                    #[serde(deserialize_with = "crate::json::null_as_default")]
                    $kept: $kept_kind,
                )*
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
                    let Flat { $($field,)* id, version, created_at, updated_at, $($kept,)* } =
                        Flat::deserialize(reader)?;
                    let meta = crate::Meta { version, created_at, updated_at };
                    Ok(Self { $($field,)* id, meta, $($kept,)* })
                }
            }
        };
    };
}
pub(crate) use object;

/// An object as the API shows it: without what only the managers know.
pub(crate) fn api_value<T: serde::Serialize>(object: &T) -> serde_json::Value {
    let mut value = serde_json::to_value(object).expect("objects have text keys and no failing serialisers");
    if let Some(fields) = value.as_object_mut() {
        fields.remove("Internal");
    }
    value
}
