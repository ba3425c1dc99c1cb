//! How each type of the data model is read, whichever of the wires it comes by.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::answer::DecodeError;
use super::lenient::{BoolVisitor, FloatVisitor, IntVisitor, TextVisitor, TimeVisitor};
use super::pieces::Pieces;
use super::{Map, Ref, Value};

/// A type that can be read from the wire.
pub trait FromWire: Default {
    /// Whether it has entries that can be read one by one.
    const IN_PIECES: bool = false;

    /// Reads one value.
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    /// Reads the entries of a large answer one by one.
    fn from_pieces(pieces: Pieces) -> Result<Self, DecodeError> {
        drop(pieces);
        Err(DecodeError::new("it is not made of pieces"))
    }
}

/// Lets what has [`FromWire`] be read by serde: `Wire<Vec<Ref<class::Vm>>>`.
#[derive(Debug)]
pub struct Wire<T>(pub T);

impl<'de, T: FromWire> Deserialize<'de> for Wire<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::from_wire(deserializer).map(Self)
    }
}

/// A type that can be the key of a map: keys are always text.
pub trait MapKey: Ord + Sized {
    /// Reads a key.
    fn from_key(text: &str) -> Result<Self, String>;
    /// Writes a key.
    fn to_key(&self) -> Cow<'_, str>;
}

impl FromWire for () {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Servers answer the empty text where they mean nothing, but anything will do.
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| ())
    }
}

impl FromWire for String {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor::new("text", |text: &str| Some(text.to_owned())))
    }
}

impl FromWire for i64 {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntVisitor)
    }
}

impl FromWire for f64 {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FloatVisitor)
    }
}

impl FromWire for bool {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoolVisitor)
    }
}

impl FromWire for Timestamp {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

impl FromWire for Value {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

impl<T> FromWire for Ref<T> {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| Some(Self::from(text));
        deserializer.deserialize_any(TextVisitor::new("a reference", read))
    }
}

impl<T: FromWire> FromWire for Option<T> {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Wire<T>>::deserialize(deserializer)?.map(|Wire(value)| value))
    }
}

impl<T: FromWire> FromWire for Vec<T> {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SetVisitor(PhantomData))
    }
}

impl<K: MapKey, V: FromWire> FromWire for Map<K, V> {
    const IN_PIECES: bool = true;

    fn from_pieces(mut pieces: Pieces) -> Result<Self, DecodeError> {
        let mut entries = Vec::with_capacity(pieces.len());
        let mut next = || {
            pieces.take_last(|key, value| {
                let Key(key) = serde_json::from_slice(key)?;
                let Wire(value) = serde_json::from_slice(value)?;
                Ok((key, value))
            })
        };
        while let Some(entry) = next() {
            entries.push(entry.map_err(DecodeError::new)?);
        }
        entries.reverse();
        Ok(Map::from_entries(entries))
    }

    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MapVisitor(PhantomData))
    }
}

struct SetVisitor<T>(PhantomData<T>);

impl<'de, T: FromWire> Visitor<'de> for SetVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    /// XML-RPC writes nothing as the empty text.
    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        nothing(text, &self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(Wire(value)) = items.next_element()? {
            values.push(value);
        }
        // There are dozens of these in each record, and most are small.
        values.shrink_to_fit();
        Ok(values)
    }
}

struct MapVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K: MapKey, V: FromWire> Visitor<'de> for MapVisitor<K, V> {
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Map<K, V>, E> {
        Ok(Map::new())
    }

    /// XML-RPC writes nothing as the empty text.
    fn visit_str<E: Error>(self, text: &str) -> Result<Map<K, V>, E> {
        nothing(text, &self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Map<K, V>, A::Error> {
        let mut found = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            let Wire(value) = entries.next_value()?;
            found.push((key, value));
        }
        Ok(Map::from_entries(found))
    }
}

/// The empty text as an empty value of the type; any other text is an error.
fn nothing<T: Default, E: Error>(text: &str, expected: &dyn serde::de::Expected) -> Result<T, E> {
    if text.is_empty() {
        return Ok(T::default());
    }
    Err(E::invalid_type(serde::de::Unexpected::Str(text), expected))
}

struct Key<K>(K);

impl<'de, K: MapKey> Deserialize<'de> for Key<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor(PhantomData)).map(Self)
    }
}

struct KeyVisitor<K>(PhantomData<K>);

impl<K: MapKey> Visitor<'_> for KeyVisitor<K> {
    type Value = K;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<K, E> {
        K::from_key(text).map_err(E::custom)
    }
}

impl MapKey for String {
    fn from_key(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_key(&self) -> Cow<'_, str> {
        self.into()
    }
}

impl<T> MapKey for Ref<T> {
    fn from_key(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn to_key(&self) -> Cow<'_, str> {
        self.to_string().into()
    }
}

impl MapKey for i64 {
    fn from_key(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| format!("the key {text:?} is no whole number"))
    }

    fn to_key(&self) -> Cow<'_, str> {
        self.to_string().into()
    }
}
