//! Records: the struct of a class, its defaults, and how its fields travel.

use std::fmt::Write as _;

use serde_json::Value;
use xenapi_model::{Class, Field, Qualifier, Stage, Type};

use super::names::{camel, identifier};
use super::{enums, owned};

/// The record of a class, or nothing where it has none.
pub(crate) fn record(class: &Class) -> String {
    if class.fields.is_empty() {
        return String::new();
    }
    let mut fields: Vec<&Field> = class.fields.iter().collect();
    // The decoder looks names up by bisection.
    fields.sort_by(|one, other| one.name.cmp(&other.name));
    [structure(class, &fields), defaults(&fields), codec(&fields)].concat()
}

fn structure(class: &Class, fields: &[&Field]) -> String {
    let mut text = format!(
        "/// What there is to know of one object of the class `{}`.\n#[derive(Clone, Debug, \
         PartialEq)]\npub struct Record {{\n",
        class.name
    );
    for field in fields {
        let _ = write!(
            text,
            "/// {}\npub {}: {},\n",
            about(field),
            identifier(&field.name),
            owned(&field.kind)
        );
    }
    text + "/// Fields that the model does not have.\npub unknown_fields: Map<String, Value>,\n}\n\n"
}

fn about(field: &Field) -> String {
    let written = match field.qualifier {
        Qualifier::ReadWrite => "can be set",
        Qualifier::Constructor => "set when the object is made",
        Qualifier::ReadOnly => "kept by the server",
    };
    let stage = match field.state {
        Stage::Prototyped => "; not yet promised to stay",
        Stage::Published => "",
        Stage::Deprecated => "; deprecated",
        Stage::Removed => "; removed",
    };
    format!("`{}`: {written}, since {}{stage}.", field.name, field.since)
}

fn defaults(fields: &[&Field]) -> String {
    let mut text = "impl Default for Record {\nfn default() -> Self {\nSelf {\n".to_owned();
    for field in fields {
        let value = match &field.default {
            Some(value) => literal(value, &field.kind),
            None => "Default::default()".into(),
        };
        let _ = writeln!(text, "{}: {value},", identifier(&field.name));
    }
    text + "unknown_fields: Map::new(),\n}\n}\n}\n\n"
}

fn codec(fields: &[&Field]) -> String {
    let mut text =
        "impl Fields for Record {\nconst NAMES: &'static [&'static str] = &[\n".to_owned();
    for field in fields {
        let _ = writeln!(text, "{:?},", field.name);
    }
    text += "];\nconst CONSTRUCTOR: &'static [u8] = &[\n";
    for (index, field) in fields.iter().enumerate() {
        if field.qualifier != Qualifier::ReadOnly {
            let _ = write!(text, "{index},");
        }
    }
    text += "];\n\nfn read<'de, A: MapAccess<'de>>(&mut self, index: usize, from: &mut A) -> \
             Result<(), A::Error> {\nmatch index {\n";
    for (index, field) in fields.iter().enumerate() {
        let _ = writeln!(text, "{index} => self.{} = read(from)?,", identifier(&field.name));
    }
    text += "_ => skip(from)?,\n}\nOk(())\n}\n\nfn write(&self, index: usize) -> Value {\n\
             match index {\n";
    for (index, field) in fields.iter().enumerate() {
        let _ = writeln!(text, "{index} => self.{}.to_wire(),", identifier(&field.name));
    }
    text + "_ => Value::Null,\n}\n}\n\nfn unknown(&self) -> &Map<String, Value> {\n&self.unknown_fields\n}\n\n\
           fn unknown_mut(&mut self) -> &mut Map<String, Value> {\n&mut self.unknown_fields\n}\n}\n\n\
           record!(Record);\n\n"
}

/// A value of the model as an expression of the type.
pub(crate) fn literal(value: &Value, kind: &Type) -> String {
    match (kind, value) {
        (Type::String, Value::String(text)) if !text.is_empty() => format!("{text:?}.to_owned()"),
        (Type::Int, Value::Number(number)) if number.as_i64() != Some(0) => number.to_string(),
        (Type::Float, Value::Number(number)) if number.as_f64() != Some(0.0) => number.to_string(),
        (Type::Bool, Value::Bool(value)) => value.to_string(),
        (Type::Enum(name), Value::String(text)) => {
            format!("enums::{}::{}", enums::name(name), enums::variant(text))
        }
        (Type::Ref(class), Value::String(text)) if text != "OpaqueRef:NULL" => {
            format!("Ref::<class::{}>::from({text:?})", camel(class))
        }
        (Type::Set(item), Value::Array(values)) if !values.is_empty() => {
            let values: Vec<String> = values.iter().map(|value| literal(value, item)).collect();
            format!("vec![{}]", values.join(", "))
        }
        (Type::Map(key, item), Value::Object(values)) if !values.is_empty() => {
            let pair = |(name, value): (&String, &Value)| {
                let name = literal(&Value::String(name.clone()), key);
                format!("({name}, {})", literal(value, item))
            };
            let values: Vec<String> = values.iter().map(pair).collect();
            format!("Map::from([{}])", values.join(", "))
        }
        _ => "Default::default()".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_become_expressions() {
        let literal = |value: Value, kind: &str| literal(&value, &kind.parse().unwrap());
        assert_eq!(
            literal(json!("unspecified"), "enum domain_type"),
            "enums::DomainType::Unspecified"
        );
        assert_eq!(literal(json!(1500), "int"), "1500");
        assert_eq!(literal(json!(""), "string"), "Default::default()");
        assert_eq!(
            literal(json!({"active": "false"}), "(string -> string) map"),
            r#"Map::from([("active".to_owned(), "false".to_owned())])"#
        );
        assert_eq!(literal(json!([0]), "int set"), "vec![Default::default()]");
    }
}
