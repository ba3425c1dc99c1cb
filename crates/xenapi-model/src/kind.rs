//! The types of fields, parameters and results, and how the model writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The type of a field, a parameter or a result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Nothing.
    Void,
    /// Text.
    String,
    /// A whole number of 64 bits.
    Int,
    /// A number.
    Float,
    /// A truth value.
    Bool,
    /// A point in time.
    DateTime,
    /// A value of the enumeration with this name.
    Enum(String),
    /// A reference to an object of this class.
    Ref(String),
    /// The record of an object of this class, or of [`Type::ANY_CLASS`].
    Record(String),
    /// Any number of these, in no order.
    Set(Box<Type>),
    /// Values by keys.
    Map(Box<Type>, Box<Type>),
    /// One of these or nothing.
    Option(Box<Type>),
    /// What `event.from` answers.
    EventBatch,
}

impl Type {
    /// The class name of a record whose class is known only at run time, as in an event.
    pub const ANY_CLASS: &'static str = "<class>";

    /// Calls `visit` with this type and all types that it is made of.
    pub fn walk(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        match self {
            Self::Set(item) | Self::Option(item) => item.walk(visit),
            Self::Map(key, value) => {
                key.walk(visit);
                value.walk(visit);
            }
            Self::Void
            | Self::String
            | Self::Int
            | Self::Float
            | Self::Bool
            | Self::DateTime
            | Self::Enum(_)
            | Self::Ref(_)
            | Self::Record(_)
            | Self::EventBatch => {}
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => f.write_str("void"),
            Self::String => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Bool => f.write_str("bool"),
            Self::DateTime => f.write_str("datetime"),
            Self::Enum(name) => write!(f, "enum {name}"),
            Self::Ref(class) => write!(f, "{class} ref"),
            Self::Record(class) => write!(f, "{class} record"),
            Self::Set(item) => write!(f, "{item} set"),
            Self::Map(key, value) => write!(f, "({key} -> {value}) map"),
            Self::Option(item) => write!(f, "{item} option"),
            Self::EventBatch => f.write_str("an event batch"),
        }
    }
}

/// Why a text is no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a type of the Xen API's model")]
pub struct ParseTypeError(String);

impl FromStr for Type {
    type Err = ParseTypeError;

    fn from_str(text: &str) -> Result<Self, ParseTypeError> {
        let inner = |text: &str| text.parse().map(Box::new);
        Ok(match text {
            "void" => Self::Void,
            "string" => Self::String,
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "datetime" => Self::DateTime,
            "an event batch" => Self::EventBatch,
            _ => {
                if let Some(item) = text.strip_suffix(" set") {
                    Self::Set(inner(item)?)
                } else if let Some(item) = text.strip_suffix(" option") {
                    Self::Option(inner(item)?)
                } else if let Some((key, value)) = text
                    .strip_prefix('(')
                    .and_then(|text| text.strip_suffix(") map"))
                    .and_then(|text| text.split_once(" -> "))
                {
                    Self::Map(inner(key)?, inner(value)?)
                } else if let Some(name) = text.strip_prefix("enum ") {
                    Self::Enum(name.to_owned())
                } else if let Some(class) = text.strip_suffix(" ref") {
                    Self::Ref(class.to_owned())
                } else if let Some(class) = text.strip_suffix(" record") {
                    Self::Record(class.to_owned())
                } else {
                    return Err(ParseTypeError(text.to_owned()));
                }
            }
        })
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_written_as_it_was_read() {
        for text in [
            "string",
            "VM ref set",
            "string set set",
            "(VM ref -> (string -> string) map) map",
            "(enum vm_operations -> string) map",
            "(string -> VDI ref) map",
            "host record option",
            "enum update_guidances set",
            "an event batch",
        ] {
            assert_eq!(text.parse::<Type>().map(|kind| kind.to_string()), Ok(text.to_owned()));
        }
        assert!("VM reference".parse::<Type>().is_err());
    }
}
