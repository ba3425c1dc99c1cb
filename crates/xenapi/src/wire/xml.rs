//! XML-RPC: requests as bytes, and answers as JSON.
//!
//! Only what XML-RPC needs of XML is understood. There are no entities but the five of XML and
//! characters by number, and document types are refused: an answer cannot grow by being read.

mod read;
mod tokens;

use super::{Request, Value, time};

pub(super) use read::value_to_json;

pub(crate) use read::XmlError;
pub(crate) use tokens::{Token, Tokens};

/// The request as an XML-RPC method call.
pub(super) fn encode(request: &Request, session: Option<&str>) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    text.push_str("<?xml version=\"1.0\"?><methodCall><methodName>");
    escape(&request.wire_name(), &mut text);
    text.push_str("</methodName><params>");
    if let Some(session) = session {
        text.push_str("<param><value><string>");
        escape(session, &mut text);
        text.push_str("</string></value></param>");
    }
    for value in &request.params {
        text.push_str("<param>");
        write(value, &mut text);
        text.push_str("</param>");
    }
    text.push_str("</params></methodCall>");
    text.into_bytes()
}

fn write(value: &Value, text: &mut String) {
    text.push_str("<value>");
    match value {
        Value::Null => {}
        Value::Bool(value) => element("boolean", if *value { "1" } else { "0" }, text),
        // Whole numbers are of 64 bits, which XML-RPC's own type for them is not.
        Value::Int(value) => element("string", &value.to_string(), text),
        Value::Float(value) => element("double", &double(*value), text),
        Value::String(value) => element("string", value, text),
        Value::Time(value) => element("dateTime.iso8601", &time::text(*value), text),
        Value::Array(values) => {
            text.push_str("<array><data>");
            for value in values {
                write(value, text);
            }
            text.push_str("</data></array>");
        }
        Value::Struct(members) => {
            text.push_str("<struct>");
            for (name, value) in members {
                text.push_str("<member>");
                element("name", name, text);
                write(value, text);
                text.push_str("</member>");
            }
            text.push_str("</struct>");
        }
    }
    text.push_str("</value>");
}

fn element(name: &str, content: &str, text: &mut String) {
    text.push('<');
    text.push_str(name);
    text.push('>');
    escape(content, text);
    text.push_str("</");
    text.push_str(name);
    text.push('>');
}

/// Old servers want a fraction in every float.
fn double(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else if value.is_infinite() {
        if value > 0.0 { "inf".into() } else { "-inf".into() }
    } else {
        format!("{value:?}")
    }
}

/// XML cannot hold most control characters in any way; servers leave them out too.
fn escape(content: &str, text: &mut String) {
    for letter in content.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\r' => text.push_str("&#13;"),
            '\n' | '\t' => text.push(letter),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {}
            _ => text.push(letter),
        }
    }
}
