//! Values that Lua code returned, as data.

use std::fmt::{self, Write as _};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A Lua value as it crosses from the VM to its user.
///
/// In JSON: `null`, booleans, numbers (integers without, floats with a fraction), strings, arrays and
/// objects. What JSON cannot say is an object with one telling key: `{"bytes_hex": "00ff"}` for a
/// string that is not UTF-8, `{"float": "nan"}`, `{"map": [[key, value], …]}` for a table whose keys
/// are not all text, and `{"other": "function: 0x…"}` for what is no data.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A Lua integer (or a float without a fraction, where the interpreter has only floats).
    Integer(i64),
    /// A Lua float.
    Float(f64),
    /// A Lua string: any bytes.
    String(Vec<u8>),
    /// A table whose keys are exactly 1, 2, … n; an empty table too.
    Array(Vec<Value>),
    /// Any other table, its entries in the order of their keys.
    Map(Vec<(Value, Value)>),
    /// A function, thread, userdata, or a table that is inside itself or too deep: its type and
    /// address, as `tostring` would write them without `__tostring`.
    Other(String),
}

impl Value {
    /// The text of a string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The integer, or the float that is a whole number.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            #[expect(clippy::cast_possible_truncation, reason = "a whole number within the range")]
            Self::Float(float) if float.fract() == 0.0 && float.abs() < 9.0e18 => {
                Some(*float as i64)
            }
            _ => None,
        }
    }

    /// The number as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "what Lua itself does")]
            Self::Integer(integer) => Some(*integer as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// The entry of a map under a text key.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }
}

/// Written as Lua source would be; strings in quotes.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Float(float) => write_float(f, *float),
            Self::String(bytes) => write_quoted(f, bytes),
            Self::Array(items) => {
                f.write_str("{")?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    item.fmt(f)?;
                }
                f.write_str("}")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    match key.as_str().filter(|key| is_identifier(key)) {
                        Some(name) => write!(f, "{name} = {value}")?,
                        None => write!(f, "[{key}] = {value}")?,
                    }
                }
                f.write_str("}")
            }
            Self::Other(description) => write!(f, "<{description}>"),
        }
    }
}

fn write_float(f: &mut fmt::Formatter<'_>, float: f64) -> fmt::Result {
    match float {
        float if float.is_nan() => f.write_str("nan"),
        float if float.is_infinite() => f.write_str(if float > 0.0 { "inf" } else { "-inf" }),
        float => write!(f, "{float:?}"),
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("\"")?;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_str("\"")
}

fn is_identifier(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

const TELLING_KEYS: [&str; 4] = ["bytes_hex", "float", "map", "other"];

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let readable = serializer.is_human_readable();
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Boolean(boolean) => serializer.serialize_bool(*boolean),
            Self::Integer(integer) => serializer.serialize_i64(*integer),
            Self::Float(float) if readable && !float.is_finite() => telling(
                serializer,
                "float",
                &if float.is_nan() { "nan".into() } else { float.to_string() },
            ),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::String(bytes) if !readable => serializer.serialize_bytes(bytes),
            Self::String(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => telling(serializer, "bytes_hex", &hex(bytes)),
            },
            Self::Array(items) => serializer.collect_seq(items),
            Self::Map(entries) if !readable || is_plain_object(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            Self::Map(entries) => telling(serializer, "map", entries),
            Self::Other(description) if readable => telling(serializer, "other", description),
            Self::Other(description) => serializer.serialize_str(description),
        }
    }
}

fn telling<S: Serializer, T: Serialize + ?Sized>(
    serializer: S,
    key: &str,
    value: &T,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

fn is_plain_object(entries: &[(Value, Value)]) -> bool {
    let telling = |key: &Value| key.as_str().is_some_and(|key| TELLING_KEYS.contains(&key));
    entries.iter().all(|(key, _)| key.as_str().is_some())
        && !(entries.len() == 1 && telling(&entries[0].0))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads the wire form: strings as bytes, what is no data as text.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Lua value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }
    fn visit_bool<E>(self, boolean: bool) -> Result<Value, E> {
        Ok(Value::Boolean(boolean))
    }
    fn visit_i64<E>(self, integer: i64) -> Result<Value, E> {
        Ok(Value::Integer(integer))
    }
    fn visit_u64<E: de::Error>(self, integer: u64) -> Result<Value, E> {
        integer.try_into().map(Value::Integer).map_err(|_| E::custom("integer beyond 64 bits"))
    }
    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        Ok(Value::Float(float))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::String(bytes.to_vec()))
    }
    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::String(bytes))
    }
    fn visit_str<E>(self, description: &str) -> Result<Value, E> {
        Ok(Value::Other(description.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        // The length that the sender claims is not trusted with an allocation.
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("equal to itself", |f| !f.is_nan()).prop_map(Value::Float),
            any::<Vec<u8>>().prop_map(Value::String),
            "[a-z]{1,8}: 0x[0-9a-f]{4}".prop_map(Value::Other),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_survives_the_wire(value in any_value()) {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
        }
    }

    #[test]
    fn json_shows_plain_data_plainly() {
        let value = Value::Map(vec![
            (text("gc"), Value::Float(49.5)),
            (text("length"), Value::Integer(48502)),
            (text("name"), text("lambda")),
        ]);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, r#"{"gc":49.5,"length":48502,"name":"lambda"}"#);
    }

    #[test]
    fn json_tags_what_it_cannot_say() {
        let json = |value: Value| serde_json::to_string(&value).unwrap();
        assert_eq!(json(Value::String(vec![0, 255])), r#"{"bytes_hex":"00ff"}"#);
        assert_eq!(json(Value::Float(f64::NEG_INFINITY)), r#"{"float":"-inf"}"#);
        assert_eq!(json(Value::Map(vec![(Value::Integer(2), text("x"))])), r#"{"map":[[2,"x"]]}"#);
        assert_eq!(
            json(Value::Map(vec![(text("other"), Value::Nil)])),
            r#"{"map":[["other",null]]}"#,
            "a table that looks like a tag is not mistaken for one"
        );
    }

    #[test]
    fn people_see_values_as_lua_writes_them() {
        let value = Value::Map(vec![
            (text("a"), Value::Array(vec![Value::Integer(1), Value::Float(2.0)])),
            (text("b c"), Value::String(b"x\"\n\xff".to_vec())),
        ]);
        assert_eq!(value.to_string(), r#"{a = {1, 2.0}, ["b c"] = "x\"\n\xff"}"#);
    }
}
