//! Reads a JSON body as Go's `encoding/json` would, and tells what it did not know.
//!
//! In: bytes and a type. Out: the value, and the paths of members nobody read. Names match in any case, as Go's do.
//! Never invents a value: what `null` means is the shapes' (see `shape.rs`).
//!
//! It works by standing between `serde_json` and the type: `deserialize_struct` tells which names the type knows.

use std::cell::RefCell;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value and the members of the body that were not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    /// The value.
    pub value: T,
    /// Paths like `HostConfig.Foo`, of members that said something (not `null`, `false`, `0`, `""`, `[]`, `{}`).
    pub unknown: Vec<String>,
}

/// Reads one JSON value; nothing but white space may follow it. `null` reads as the default.
pub fn from_slice<T>(bytes: &[u8]) -> Result<Parsed<T>, serde_json::Error>
where
    T: de::DeserializeOwned + Default,
{
    let trace = Trace::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Option::<T>::deserialize_with(&trace, &mut json)?;
    json.end()?;
    Ok(Parsed { value: value.unwrap_or_default(), unknown: trace.unknown.into_inner() })
}

trait DeserializeWith: Sized {
    fn deserialize_with<'de, D: Deserializer<'de>>(trace: &Trace, from: D) -> Result<Self, D::Error>;
}

impl<T: de::DeserializeOwned> DeserializeWith for T {
    fn deserialize_with<'de, D: Deserializer<'de>>(trace: &Trace, from: D) -> Result<Self, D::Error> {
        T::deserialize(Lenient { inner: from, trace })
    }
}

/// Where the reader is, and what it met that nobody knew.
#[derive(Default)]
struct Trace {
    path: RefCell<Vec<String>>,
    unknown: RefCell<Vec<String>>,
}

impl Trace {
    /// How many unknown members are remembered. chosen: enough for a message, small enough for a hostile body.
    const MOST: usize = 32;

    fn note(&self, name: &str) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < Self::MOST {
            let mut path = self.path.borrow().join(".");
            if !path.is_empty() {
                path.push('.');
            }
            unknown.push(path + name);
        }
    }

    fn within<R>(&self, name: &str, read: impl FnOnce() -> R) -> R {
        self.path.borrow_mut().push(name.to_owned());
        let out = read();
        self.path.borrow_mut().pop();
        out
    }
}

struct Lenient<'t, D> {
    inner: D,
    trace: &'t Trace,
}

macro_rules! pass_on {
    ($($method:ident),* $(,)?) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Watch { visitor, trace: self.trace, fields: None })
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<'_, D> {
    type Error = D::Error;

    pass_on!(
        deserialize_any,
        deserialize_bool,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_option,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
        deserialize_ignored_any,
    );

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        v: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, v)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Watch { visitor, trace: self.trace, fields: None })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Watch { visitor, trace: self.trace, fields: None })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Watch { visitor, trace: self.trace, fields: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let watch = Watch { visitor, trace: self.trace, fields: Some(fields) };
        self.inner.deserialize_struct(name, fields, watch)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }
}

/// A visitor that hands everything on, and watches what lies inside maps and lists.
struct Watch<'t, V> {
    visitor: V,
    trace: &'t Trace,
    fields: Option<&'static [&'static str]>,
}

macro_rules! visit {
    ($($method:ident($kind:ty)),* $(,)?) => { $(
        fn $method<E: de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watch<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.visitor.expecting(f)
    }

    visit!(
        visit_bool(bool),
        visit_i64(i64),
        visit_i128(i128),
        visit_u64(u64),
        visit_u128(u128),
        visit_f64(f64),
        visit_str(&str),
        visit_borrowed_str(&'de str),
        visit_string(String),
        visit_bytes(&[u8]),
        visit_borrowed_bytes(&'de [u8]),
        visit_byte_buf(Vec<u8>),
    );

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Lenient { inner, trace: self.trace })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Lenient { inner, trace: self.trace })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        if self.fields.is_some() {
            // serde would read a list as a struct's fields in order; Go does not.
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        self.visitor.visit_seq(WatchSeq { inner, trace: self.trace })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(WatchMap {
            inner,
            trace: self.trace,
            fields: self.fields,
            name: String::new(),
        })
    }
}

struct WatchSeq<'t, A> {
    inner: A,
    trace: &'t Trace,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for WatchSeq<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.inner.next_element_seed(Seed { seed, trace: self.trace })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct WatchMap<'t, A> {
    inner: A,
    trace: &'t Trace,
    fields: Option<&'static [&'static str]>,
    name: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WatchMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.inner.next_key::<String>()? {
            let known = match self.fields {
                None => Some(name.as_str()),
                Some(fields) => known_as(fields, &name),
            };
            if let Some(known) = known {
                let value = seed.deserialize(de::value::StrDeserializer::new(known))?;
                self.name = known.to_owned();
                return Ok(Some(value));
            }
            if self.inner.next_value::<Says>()?.0 {
                self.trace.note(&name);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let name = std::mem::take(&mut self.name);
        let trace = self.trace;
        trace.within(&name, || self.inner.next_value_seed(Seed { seed, trace }))
    }
}

/// The type's own spelling of `name`: exact first, then in any case.
fn known_as(fields: &'static [&'static str], name: &str) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == name);
    exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(name))).copied()
}

struct Seed<'t, S> {
    seed: S,
    trace: &'t Trace,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Lenient { inner, trace: self.trace })
    }
}

/// Reads any value and tells whether it said something.
struct Says(bool);

impl<'de> de::Deserialize<'de> for Says {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Listen;
        impl<'de> Visitor<'de> for Listen {
            type Value = Says;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Says, E> {
                Ok(Says(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Says, E> {
                Ok(Says(value != 0))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Says, E> {
                Ok(Says(value != 0))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Says, E> {
                Ok(Says(value != 0.0))
            }
            fn visit_str<E>(self, value: &str) -> Result<Says, E> {
                Ok(Says(!value.is_empty()))
            }
            fn visit_unit<E>(self) -> Result<Says, E> {
                Ok(Says(false))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Says, A::Error> {
                let mut any = false;
                while seq.next_element::<de::IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Says(any))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Says, A::Error> {
                let mut any = false;
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Says(any))
            }
        }
        from.deserialize_any(Listen)
    }
}
