//! How each type of the data model is written, and requests as bytes.

use std::io::Write as _;

use jiff::Timestamp;

use super::{Map, MapKey, Protocol, Ref, Request, Value, xml};

/// A type that can be sent.
pub trait ToWire {
    /// The value as it travels.
    fn to_wire(&self) -> Value;
}

impl ToWire for () {
    fn to_wire(&self) -> Value {
        Value::Null
    }
}

impl ToWire for str {
    fn to_wire(&self) -> Value {
        Value::String(self.to_owned())
    }
}

impl ToWire for String {
    fn to_wire(&self) -> Value {
        Value::String(self.clone())
    }
}

impl ToWire for i64 {
    fn to_wire(&self) -> Value {
        Value::Int(*self)
    }
}

impl ToWire for f64 {
    fn to_wire(&self) -> Value {
        Value::Float(*self)
    }
}

impl ToWire for bool {
    fn to_wire(&self) -> Value {
        Value::Bool(*self)
    }
}

impl ToWire for Timestamp {
    fn to_wire(&self) -> Value {
        Value::Time(*self)
    }
}

impl ToWire for Value {
    fn to_wire(&self) -> Value {
        self.clone()
    }
}

impl<T> ToWire for Ref<T> {
    fn to_wire(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl<T: ToWire> ToWire for Option<T> {
    fn to_wire(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToWire::to_wire)
    }
}

impl<T: ToWire> ToWire for [T] {
    fn to_wire(&self) -> Value {
        Value::Array(self.iter().map(ToWire::to_wire).collect())
    }
}

impl<T: ToWire> ToWire for Vec<T> {
    fn to_wire(&self) -> Value {
        self.as_slice().to_wire()
    }
}

impl<K: MapKey, V: ToWire> ToWire for Map<K, V> {
    fn to_wire(&self) -> Value {
        let member = |(key, value): (&K, &V)| (key.to_key().into_owned(), value.to_wire());
        Value::Struct(self.iter().map(member).collect())
    }
}

/// The request as the body of a POST to [`Protocol::path`]. The session goes before the parameters
/// where there is one and the request wants it.
pub fn encode(request: &Request, session: Option<&str>, protocol: Protocol) -> Vec<u8> {
    let session = session.filter(|_| request.session);
    match protocol {
        Protocol::JsonRpc2 => json(request, session, "{\"jsonrpc\":\"2.0\","),
        Protocol::JsonRpc1 => json(request, session, "{"),
        Protocol::XmlRpc => xml::encode(request, session),
    }
}

fn json(request: &Request, session: Option<&str>, start: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(start.as_bytes());
    body.extend_from_slice(b"\"method\":");
    write(&mut body, &request.wire_name());
    body.extend_from_slice(b",\"params\":[");
    if let Some(session) = session {
        write(&mut body, session);
    }
    for (index, value) in request.params.iter().enumerate() {
        if index > 0 || session.is_some() {
            body.push(b',');
        }
        write(&mut body, value);
    }
    // Answers come in the order of their requests: none needs a number to be told by.
    body.extend_from_slice(b"],\"id\":1}");
    body
}

fn write<T: serde::Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *body, value);
    // Memory takes every byte, and keys are text: neither can fail.
    debug_assert!(written.is_ok());
    let _ = body.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Vm;

    fn start() -> Request {
        let vm = Ref::<Vm>::from("OpaqueRef:1");
        Request::write("VM.start", vec![vm.to_wire(), false.to_wire(), 60.0.to_wire()])
    }

    fn text(request: &Request, protocol: Protocol) -> String {
        String::from_utf8(encode(request, Some("OpaqueRef:s"), protocol)).unwrap()
    }

    #[test]
    fn a_request_is_written_as_json_rpc() {
        assert_eq!(
            text(&start(), Protocol::JsonRpc2),
            r#"{"jsonrpc":"2.0","method":"VM.start","params":["OpaqueRef:s","OpaqueRef:1",false,60.0],"id":1}"#
        );
        assert_eq!(
            text(&start().as_task(), Protocol::JsonRpc1),
            r#"{"method":"Async.VM.start","params":["OpaqueRef:s","OpaqueRef:1",false,60.0],"id":1}"#
        );
    }

    #[test]
    fn a_session_is_left_out_where_none_is_wanted() {
        let request = Request::write("session.login_with_password", vec!["root".to_wire()]);
        assert_eq!(
            text(&request.without_session(), Protocol::JsonRpc2),
            r#"{"jsonrpc":"2.0","method":"session.login_with_password","params":["root"],"id":1}"#
        );
    }

    #[test]
    fn a_request_is_written_as_xml_rpc() {
        assert_eq!(
            text(&start(), Protocol::XmlRpc),
            "<?xml version=\"1.0\"?><methodCall><methodName>VM.start</methodName><params>\
             <param><value><string>OpaqueRef:s</string></value></param>\
             <param><value><string>OpaqueRef:1</string></value></param>\
             <param><value><boolean>0</boolean></value></param>\
             <param><value><double>60.0</double></value></param></params></methodCall>"
        );
    }
}
