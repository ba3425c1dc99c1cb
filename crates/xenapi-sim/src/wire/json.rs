//! JSON-RPC, 1.0 and 2.0.

use serde_json::Value as Raw;

use super::{Malformed, Request, Sink, Wire};
use crate::database::Row;
use crate::error::ApiError;
use crate::value::{Ref, Value, float_text, time_text};

/// Reads a call.
pub(crate) fn decode(body: &[u8]) -> Result<Request, Malformed> {
    let malformed = |reason: &str| Malformed(reason.to_owned());
    let raw: Raw = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
    let Raw::Object(mut members) = raw else { return Err(malformed("the body is no object")) };
    let Some(Raw::String(method)) = members.remove("method") else {
        return Err(malformed("there is no method"));
    };
    let Some(id @ (Raw::String(_) | Raw::Number(_))) = members.remove("id") else {
        return Err(malformed("the id is neither a number nor text"));
    };
    let second = match members.get("jsonrpc") {
        None => false,
        Some(Raw::String(version)) if version == "2.0" => true,
        Some(_) => return Err(malformed("only 1.0 and 2.0 of JSON-RPC are known")),
    };
    let params = match (second, members.remove("params")) {
        (_, Some(Raw::Array(params))) => params,
        (true, None | Some(Raw::Null)) => Vec::new(),
        (true, Some(object @ Raw::Object(_))) => vec![object],
        _ => return Err(malformed("the parameters are no array")),
    };
    let wire = if second { Wire::Json2(id) } else { Wire::Json1(id) };
    Ok(Request { method, params, wire })
}

/// Writes an answer in version 1.0.
pub(crate) fn encode_1(out: &mut impl Sink, id: &Raw, outcome: &Result<Value, ApiError>) {
    out.extend_from_slice(b"{\"result\":");
    match outcome {
        Ok(value) => {
            write(out, value);
            out.extend_from_slice(b",\"error\":null");
        }
        Err(error) => {
            out.extend_from_slice(b"null,\"error\":[");
            texts(out, [&error.code].into_iter().chain(&error.params));
            out.push(b']');
        }
    }
    finish(out, id);
}

/// Writes an answer in version 2.0.
pub(crate) fn encode_2(out: &mut impl Sink, id: &Raw, outcome: &Result<Value, ApiError>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    match outcome {
        Ok(value) => {
            out.extend_from_slice(b"\"result\":");
            write(out, value);
        }
        Err(error) => {
            out.extend_from_slice(b"\"error\":{\"code\":1,\"message\":");
            text(out, &error.code);
            out.extend_from_slice(b",\"data\":[");
            texts(out, &error.params);
            out.extend_from_slice(b"]}");
        }
    }
    finish(out, id);
}

fn finish(out: &mut impl Sink, id: &Raw) {
    out.extend_from_slice(b",\"id\":");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b'}');
}

fn texts<'a>(out: &mut impl Sink, items: impl IntoIterator<Item = &'a String>) {
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text(out, item);
    }
}

/// Writes a value.
pub(crate) fn write(out: &mut impl Sink, value: &Value) {
    match value {
        Value::Void => out.extend_from_slice(b"\"\""),
        Value::String(letters) => text(out, letters),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::Count(number) => {
            out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
        }
        Value::Float(number) => out.extend_from_slice(float_text(*number).as_bytes()),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Time(seconds) => quoted(out, time_text(*seconds).as_bytes()),
        Value::Uuid(uuid) => {
            let mut buffer = [0; 36];
            quoted(out, uuid.hyphenated().encode_lower(&mut buffer).as_bytes());
        }
        Value::Ref(it) => reference(out, *it),
        Value::Set(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            out.push(b'{');
            for (place, (key, value)) in entries.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                text(out, &key.plain());
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
        Value::Struct(members) => {
            out.push(b'{');
            for (place, (name, value)) in members.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                quoted(out, name.as_bytes());
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
        Value::Record(row) => record(out, row),
        Value::Records(rows) => {
            out.push(b'{');
            for (place, row) in rows.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                reference(out, row.reference);
                out.push(b':');
                record(out, row);
            }
            out.push(b'}');
        }
    }
}

fn record(out: &mut impl Sink, row: &Row) {
    out.push(b'{');
    for (place, (field, value)) in row.info().fields.iter().zip(&row.values).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        quoted(out, field.name.as_bytes());
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

fn reference(out: &mut impl Sink, it: Ref) {
    if it.is_null() {
        out.extend_from_slice(b"\"OpaqueRef:NULL\"");
    } else {
        let mut buffer = [0; 36];
        out.extend_from_slice(b"\"OpaqueRef:");
        out.extend_from_slice(it.0.hyphenated().encode_lower(&mut buffer).as_bytes());
        out.push(b'"');
    }
}

/// Writes what needs no escapes.
fn quoted(out: &mut impl Sink, plain: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(plain);
    out.push(b'"');
}

fn text(out: &mut impl Sink, letters: &str) {
    out.push(b'"');
    let bytes = letters.as_bytes();
    let mut start = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..place]);
        start = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::error;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn the_version_decides_the_shape_of_a_failure() {
        let failure = Err(error("VM_BAD_POWER_STATE", ["a", "halted", "running"]));
        let one: Raw =
            serde_json::from_slice(&written(|out| encode_1(out, &json!("x"), &failure))).unwrap();
        let told = json!(["VM_BAD_POWER_STATE", "a", "halted", "running"]);
        assert_eq!(one, json!({"result": null, "error": told, "id": "x"}));
        let two: Raw =
            serde_json::from_slice(&written(|out| encode_2(out, &json!(7), &failure))).unwrap();
        let told = json!({
            "code": 1, "message": "VM_BAD_POWER_STATE", "data": ["a", "halted", "running"],
        });
        assert_eq!(two, json!({"jsonrpc": "2.0", "error": told, "id": 7}));
    }

    #[test]
    fn calls_are_read_by_the_rules_of_their_version() {
        let read = |value: Raw| decode(value.to_string().as_bytes());
        let one = read(json!({"method": "a.b", "params": [1], "id": 1})).unwrap();
        assert_eq!((one.wire, one.params), (Wire::Json1(json!(1)), vec![json!(1)]));
        let two = read(json!({"jsonrpc": "2.0", "method": "a.b", "id": "i"})).unwrap();
        assert_eq!((two.wire, two.params), (Wire::Json2(json!("i")), vec![]));
        let object = json!({"jsonrpc": "2.0", "method": "a.b", "params": {"a": 1}, "id": 1});
        assert_eq!(read(object).unwrap().params, [json!({"a": 1})]);
        for wrong in [
            json!({"method": "a.b", "id": 1}),
            json!({"method": "a.b", "params": {}, "id": 1}),
            json!({"jsonrpc": "2.0", "method": "a.b"}),
            json!({"jsonrpc": "2.0", "method": "a.b", "id": null}),
            json!([]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_survives_json() {
        for letters in ["plain", "qu\"ote \\ \n\r\t\u{1} ü 🧬", ""] {
            let mut out = Vec::new();
            text(&mut out, letters);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), letters);
        }
    }

    #[test]
    fn floats_always_look_like_floats() {
        let mut out = Vec::new();
        write(&mut out, &Value::set([1.0, 0.5, 1e300, f64::NAN].map(Value::Float).to_vec()));
        assert_eq!(String::from_utf8(out).unwrap(), "[1.0,0.5,1e300,0.0]");
    }
}
