//! Records: one visitor for all classes, driven by the generated table of each.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serializer;

use super::{FromWire, Map, Value, Wire};

/// What is generated for each record: its fields by number, in the order of their names.
pub trait Fields: Default {
    /// Names as on the wire, sorted.
    const NAMES: &'static [&'static str];
    /// The fields that a constructor takes.
    const CONSTRUCTOR: &'static [u8];

    /// Reads the field with this number.
    fn read<'de, A: MapAccess<'de>>(&mut self, index: usize, from: &mut A) -> Result<(), A::Error>;
    /// Writes the field with this number.
    fn write(&self, index: usize) -> Value;
    /// Fields that the model does not have.
    fn unknown(&self) -> &Map<String, Value>;
    /// Fields that the model does not have, to be added to.
    fn unknown_mut(&mut self) -> &mut Map<String, Value>;
}

/// Gives a record the traits of the wire and of serde.
macro_rules! record {
    ($name:ident) => {
        impl $crate::wire::FromWire for $name {
            fn from_wire<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::wire::record_from_wire(deserializer)
            }
        }

        impl $crate::wire::ToWire for $name {
            fn to_wire(&self) -> $crate::wire::Value {
                $crate::wire::constructor(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::wire::record_from_wire(deserializer)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::wire::serialize_record(self, serializer)
            }
        }
    };
}

pub(crate) use record;

/// Reads the value of one field.
#[inline]
pub(crate) fn read<'de, T: FromWire, A: MapAccess<'de>>(from: &mut A) -> Result<T, A::Error> {
    from.next_value::<Wire<T>>().map(|Wire(value)| value)
}

/// Passes over the value of one field.
pub(crate) fn skip<'de, A: MapAccess<'de>>(from: &mut A) -> Result<(), A::Error> {
    from.next_value::<IgnoredAny>().map(|_| ())
}

/// What a constructor takes of a record.
pub(crate) fn constructor<T: Fields>(record: &T) -> Value {
    let fields = T::CONSTRUCTOR.iter().map(|&index| {
        let index = usize::from(index);
        (T::NAMES[index].to_owned(), record.write(index))
    });
    Value::Struct(fields.collect())
}

/// Writes every field.
pub(crate) fn serialize_record<T: Fields, S: Serializer>(
    record: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;

    let mut map = serializer.serialize_map(Some(T::NAMES.len() + record.unknown().len()))?;
    for (index, name) in T::NAMES.iter().enumerate() {
        map.serialize_entry(name, &record.write(index))?;
    }
    for (name, value) in record.unknown() {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// Reads a record. What is missing takes the model's default.
pub(crate) fn record_from_wire<'de, T: Fields, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(RecordVisitor(PhantomData))
}

struct RecordVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for RecordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<T, A::Error> {
        let mut record = T::default();
        let mut next = 0;
        while let Some(name) = entries.next_key_seed(NameSeed { names: T::NAMES, next })? {
            match name {
                Name::Known(index) => {
                    next = index + 1;
                    record
                        .read(index, &mut entries)
                        .map_err(|error| in_field(T::NAMES[index], &error))?;
                }
                Name::Other(name) => {
                    let value = entries.next_value()?;
                    record.unknown_mut().insert(name, value);
                }
            }
        }
        Ok(record)
    }
}

#[cold]
fn in_field<E: Error>(name: &str, error: &E) -> E {
    E::custom(format_args!("field `{name}`: {error}"))
}

enum Name {
    Known(usize),
    Other(String),
}

/// Finds a field by name. Most servers send them in one order, so the one after the last is tried
/// before all others.
struct NameSeed {
    names: &'static [&'static str],
    next: usize,
}

impl<'de> serde::de::DeserializeSeed<'de> for NameSeed {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        if self.names.get(self.next).is_some_and(|next| *next == name) {
            return Ok(Name::Known(self.next));
        }
        Ok(self
            .names
            .binary_search(&name)
            .map_or_else(|_| Name::Other(name.to_owned()), Name::Known))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::enums::VmPowerState;
    use crate::wire::ToWire as _;
    use crate::{Ref, vdi, vm};

    #[test]
    fn fields_that_are_missing_take_the_models_default() {
        let record: vm::Record = serde_json::from_value(json!({})).unwrap();
        assert_eq!(record, vm::Record::default());
        assert_eq!(record.power_state, VmPowerState::Halted);
        assert_eq!(record.hvm_shadow_multiplier.to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn fields_that_the_model_does_not_have_are_kept() {
        let sent = json!({ "name_label": "web", "shiny": { "new": [1, true] } });
        let record: vm::Record = serde_json::from_value(sent).unwrap();
        assert_eq!(record.name_label, "web");
        let shiny = record.unknown_fields.get("shiny").and_then(|value| value.member("new"));
        assert_eq!(shiny, Some(&Value::Array(vec![Value::Int(1), Value::Bool(true)])));
        assert_eq!(serde_json::to_value(&record).unwrap()["shiny"], json!({ "new": [1, true] }));
    }

    #[test]
    fn servers_of_any_age_are_understood() {
        let record: vm::Record = serde_json::from_value(json!({
            "memory_static_max": "4294967296",
            "domid": -1.0,
            "HVM_shadow_multiplier": 1,
            "VCPUs_max": 2,
            "resident_on": "",
            "snapshot_time": "2026-08-21T13:04:05.5+02:00",
            "power_state": "Dreaming",
            "tags": null,
            "other_config": "",
        }))
        .unwrap();
        assert_eq!(record.memory_static_max, 4 << 30);
        assert_eq!((record.domid, record.vcpus_max), (-1, 2));
        assert!(record.resident_on.is_null());
        assert_eq!(record.power_state, VmPowerState::Unknown("Dreaming".into()));
        assert_eq!(record.snapshot_time.as_second(), 1_787_310_245);
    }

    #[test]
    fn a_wrong_type_is_refused_with_the_fields_name() {
        for (field, value) in [
            ("memory_static_max", json!("plenty")),
            ("is_a_template", json!("perhaps")),
            ("VIFs", json!("one")),
            ("other_config", json!(["a"])),
            ("name_label", json!(7)),
            ("snapshot_time", json!("noon")),
        ] {
            let error = serde_json::from_value::<vm::Record>(json!({ field: value })).unwrap_err();
            assert!(error.to_string().starts_with(&format!("field `{field}`: ")), "{error}");
        }
    }

    #[test]
    fn a_constructor_is_sent_only_what_it_takes() {
        let record = vdi::Record {
            uuid: "made by the server".into(),
            name_label: "data".into(),
            virtual_size: 1 << 30,
            sr: Ref::from("OpaqueRef:storage"),
            ..Default::default()
        };
        let sent = record.to_wire();
        assert_eq!(sent.member("uuid"), None);
        assert_eq!(sent.member("virtual_size"), Some(&Value::Int(1 << 30)));
        assert_eq!(sent.member("SR"), Some(&Value::String("OpaqueRef:storage".into())));
    }

    #[test]
    fn names_of_fields_are_sorted_for_bisection() {
        assert!(vm::Record::NAMES.is_sorted());
        assert!(vm::Record::NAMES.len() <= 256);
    }
}
