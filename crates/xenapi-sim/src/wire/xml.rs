//! XML-RPC.

use quick_xml::events::Event;
use serde_json::Value as Raw;

use super::{Malformed, Request, Sink, Wire};
use crate::database::Row;
use crate::error::ApiError;
use crate::value::{Value, float_text, time_text};

/// How deep values may be nested.
const DEPTH: u32 = 64;

/// Reads a call.
pub(crate) fn decode(body: &[u8]) -> Result<Request, Malformed> {
    let mut reader = Reader::new(body);
    reader.open("methodCall")?;
    reader.open("methodName")?;
    let method = reader.text("methodName")?.trim().to_owned();
    let mut params = Vec::new();
    if let Part::Open(name) = reader.next()? {
        if name != "params" {
            return Err(unexpected(&name));
        }
        loop {
            match reader.next()? {
                Part::Open(name) if name == "param" => {
                    reader.open("value")?;
                    params.push(reader.value(DEPTH)?);
                    reader.close("param")?;
                }
                Part::Close(name) if name == "params" => break,
                part => return Err(unexpected(part.name())),
            }
        }
    }
    let bare = method == "system.listMethods";
    Ok(Request { method, params, wire: if bare { Wire::BareXml } else { Wire::Xml } })
}

fn unexpected(name: &str) -> Malformed {
    Malformed(format!("`{name}` has no place here"))
}

/// A piece of a document.
enum Part {
    Open(String),
    Close(String),
    Text(String),
}

impl Part {
    fn name(&self) -> &str {
        match self {
            Self::Open(name) | Self::Close(name) | Self::Text(name) => name,
        }
    }
}

struct Reader<'a> {
    inner: quick_xml::Reader<&'a [u8]>,
    /// What was read too far.
    ahead: Option<Part>,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8]) -> Self {
        let mut inner = quick_xml::Reader::from_reader(body);
        inner.config_mut().expand_empty_elements = true;
        Self { inner, ahead: None }
    }

    /// The next piece; text is kept whole, white space and all.
    fn piece(&mut self) -> Result<Part, Malformed> {
        if let Some(part) = self.ahead.take() {
            return Ok(part);
        }
        let mut text = String::new();
        loop {
            let event = self.inner.read_event().map_err(|error| Malformed(error.to_string()))?;
            let part = match event {
                Event::Start(tag) | Event::Empty(tag) => Part::Open(tag.name().as_ref().to_owned()),
                Event::End(tag) => Part::Close(tag.name().as_ref().to_owned()),
                Event::Text(part) => {
                    text.push_str(part.as_ref());
                    continue;
                }
                Event::CData(part) => {
                    text.push_str(part.as_ref());
                    continue;
                }
                Event::GeneralRef(name) => {
                    text.push(entity(name.as_ref())?);
                    continue;
                }
                Event::Eof => return Err(Malformed("the document ends too early".into())),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
                Event::DocType(_) => {
                    return Err(Malformed("documents with a type declaration are not read".into()));
                }
            };
            if text.is_empty() {
                return Ok(part);
            }
            self.ahead = Some(part);
            return Ok(Part::Text(text));
        }
    }

    /// The next tag.
    fn next(&mut self) -> Result<Part, Malformed> {
        match self.piece()? {
            Part::Text(text) if text.trim().is_empty() => self.piece(),
            part => Ok(part),
        }
    }

    fn open(&mut self, name: &str) -> Result<(), Malformed> {
        match self.next()? {
            Part::Open(found) if found == name => Ok(()),
            part => Err(Malformed(format!("`{name}` was expected, and `{}` came", part.name()))),
        }
    }

    fn close(&mut self, name: &str) -> Result<(), Malformed> {
        match self.next()? {
            Part::Close(found) if found == name => Ok(()),
            part => Err(Malformed(format!(
                "the end of `{name}` was expected, and `{}` came",
                part.name()
            ))),
        }
    }

    /// The text up to the end of the element that was opened.
    fn text(&mut self, name: &str) -> Result<String, Malformed> {
        match self.piece()? {
            Part::Text(text) => {
                self.close(name)?;
                Ok(text)
            }
            Part::Close(found) if found == name => Ok(String::new()),
            part => Err(unexpected(part.name())),
        }
    }

    /// The value in the element `value` that was opened, with its end.
    fn value(&mut self, depth: u32) -> Result<Raw, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("values are nested too deeply".into()))?;
        let kind = match self.piece()? {
            Part::Text(text) => match self.piece()? {
                Part::Close(name) if name == "value" => return Ok(Raw::String(text)),
                Part::Open(name) if text.trim().is_empty() => name,
                part => return Err(unexpected(part.name())),
            },
            Part::Close(_) => return Ok(Raw::String(String::new())),
            Part::Open(name) => name,
        };
        let value = match kind.as_str() {
            "array" => self.array(depth)?,
            "struct" => self.members(depth)?,
            "nil" => {
                self.close("nil")?;
                Raw::Null
            }
            "string" | "base64" | "dateTime.iso8601" => Raw::String(self.text(&kind)?),
            "int" | "i4" | "i8" => {
                let text = self.text(&kind)?;
                let number: Result<i64, _> = text.trim().parse();
                number.map_err(|_| Malformed(format!("`{text}` is no whole number")))?.into()
            }
            "double" => {
                let text = self.text(&kind)?;
                let number: Result<f64, _> = text.trim().parse();
                number.map_err(|_| Malformed(format!("`{text}` is no number")))?.into()
            }
            "boolean" => match self.text(&kind)?.trim() {
                "1" => Raw::Bool(true),
                "0" => Raw::Bool(false),
                text => return Err(Malformed(format!("`{text}` is no truth value"))),
            },
            _ => return Err(unexpected(&kind)),
        };
        self.close("value")?;
        Ok(value)
    }

    fn array(&mut self, depth: u32) -> Result<Raw, Malformed> {
        let mut items = Vec::new();
        self.open("data")?;
        loop {
            match self.next()? {
                Part::Open(name) if name == "value" => items.push(self.value(depth)?),
                Part::Close(_) => break,
                part => return Err(unexpected(part.name())),
            }
        }
        self.close("array")?;
        Ok(Raw::Array(items))
    }

    fn members(&mut self, depth: u32) -> Result<Raw, Malformed> {
        let mut members = serde_json::Map::new();
        loop {
            match self.next()? {
                Part::Open(name) if name == "member" => {
                    self.open("name")?;
                    let name = self.text("name")?;
                    self.open("value")?;
                    members.insert(name, self.value(depth)?);
                    self.close("member")?;
                }
                Part::Close(_) => return Ok(Raw::Object(members)),
                part => return Err(unexpected(part.name())),
            }
        }
    }
}

/// The letter that an entity stands for; only those that every document has are known.
fn entity(name: &str) -> Result<char, Malformed> {
    let letter = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => name.strip_prefix('#').and_then(|number| {
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }),
    };
    letter.ok_or_else(|| Malformed(format!("the entity `{name}` is not known")))
}

/// Writes an answer.
pub(crate) fn encode(out: &mut impl Sink, outcome: &Result<Value, ApiError>) {
    start(out);
    match outcome {
        Ok(value) => {
            out.extend_from_slice(b"<struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>");
            write(out, value);
        }
        Err(error) => {
            out.extend_from_slice(b"<struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name>");
            let all = [&error.code].into_iter().chain(&error.params);
            write(out, &Value::texts(all));
        }
    }
    out.extend_from_slice(b"</member></struct>");
    end(out);
}

/// Writes an answer that is the value itself.
pub(crate) fn encode_bare(out: &mut impl Sink, outcome: &Result<Value, ApiError>) {
    let Ok(value) = outcome else { return encode(out, outcome) };
    out.extend_from_slice(b"<?xml version=\"1.0\"?><methodResponse><params><param>");
    write(out, value);
    out.extend_from_slice(b"</param></params></methodResponse>");
}

fn start(out: &mut impl Sink) {
    out.extend_from_slice(b"<?xml version=\"1.0\"?><methodResponse><params><param><value>");
}

fn end(out: &mut impl Sink) {
    out.extend_from_slice(b"</value></param></params></methodResponse>");
}

/// Writes a value with its element.
pub(crate) fn write(out: &mut impl Sink, value: &Value) {
    out.extend_from_slice(b"<value>");
    match value {
        Value::Void => {}
        Value::String(letters) => text(out, letters),
        Value::Int(_) | Value::Uuid(_) | Value::Ref(_) => {
            out.extend_from_slice(value.plain().as_bytes());
        }
        Value::Count(number) => out.extend_from_slice(format!("<i4>{number}</i4>").as_bytes()),
        Value::Float(number) => {
            out.extend_from_slice(format!("<double>{}</double>", float_text(*number)).as_bytes());
        }
        Value::Bool(truth) => {
            let digit = u8::from(*truth);
            out.extend_from_slice(format!("<boolean>{digit}</boolean>").as_bytes());
        }
        Value::Time(seconds) => {
            let time = time_text(*seconds);
            out.extend_from_slice(
                format!("<dateTime.iso8601>{time}</dateTime.iso8601>").as_bytes(),
            );
        }
        Value::Set(items) => {
            out.extend_from_slice(b"<array><data>");
            for item in items.iter() {
                write(out, item);
            }
            out.extend_from_slice(b"</data></array>");
        }
        Value::Map(entries) => {
            out.extend_from_slice(b"<struct>");
            for (key, value) in entries.iter() {
                member(out, &key.plain(), value);
            }
            out.extend_from_slice(b"</struct>");
        }
        Value::Struct(members) => {
            out.extend_from_slice(b"<struct>");
            for (name, value) in members.iter() {
                member(out, name, value);
            }
            out.extend_from_slice(b"</struct>");
        }
        Value::Record(row) => record(out, row),
        Value::Records(rows) => {
            out.extend_from_slice(b"<struct>");
            for row in rows.iter() {
                out.extend_from_slice(b"<member><name>");
                out.extend_from_slice(row.reference.to_string().as_bytes());
                out.extend_from_slice(b"</name><value>");
                record(out, row);
                out.extend_from_slice(b"</value></member>");
            }
            out.extend_from_slice(b"</struct>");
        }
    }
    out.extend_from_slice(b"</value>");
}

fn record(out: &mut impl Sink, row: &Row) {
    out.extend_from_slice(b"<struct>");
    for (field, value) in row.info().fields.iter().zip(&row.values) {
        member(out, field.name, value);
    }
    out.extend_from_slice(b"</struct>");
}

fn member(out: &mut impl Sink, name: &str, value: &Value) {
    out.extend_from_slice(b"<member><name>");
    text(out, name);
    out.extend_from_slice(b"</name>");
    write(out, value);
    out.extend_from_slice(b"</member>");
}

/// Writes text; control characters, which XML cannot hold, are left out.
fn text(out: &mut impl Sink, letters: &str) {
    let bytes = letters.as_bytes();
    let mut start = 0;
    for (place, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'\t' | b'\n' | b'\r' | 0x20.. => continue,
            _ => b"",
        };
        out.extend_from_slice(&bytes[start..place]);
        out.extend_from_slice(escape);
        start = place + 1;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// What a task's `result` says: the value as XML.
pub(crate) fn task_result(value: &Value) -> String {
    let mut out = Vec::new();
    write(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::error::error;

    const CALL: &str = "<?xml version='1.0'?>\n<methodCall>\n<methodName>VM.start</methodName>\n<params>\n\
        <param>\n<value><string>a &amp; b</string></value>\n</param>\n\
        <param><value>untyped </value></param><param><value/></param>\
        <param><value><boolean>1</boolean></value></param><param><value><int>7</int></value></param>\
        <param><value><struct><member><name>k</name><value><array><data><value>1</value></data></array>\
        </value></member></struct></value></param></params></methodCall>";

    #[test]
    fn a_call_is_read_with_all_its_types() {
        let request = decode(CALL.as_bytes()).unwrap();
        assert_eq!(request.method, "VM.start");
        assert_eq!(request.wire, Wire::Xml);
        let params = json!(["a & b", "untyped ", "", true, 7, {"k": ["1"]}]);
        assert_eq!(json!(request.params), params);
        let bare = b"<methodCall><methodName>system.listMethods</methodName></methodCall>";
        assert_eq!(decode(bare).unwrap().wire, Wire::BareXml);
    }

    #[test]
    fn answers_have_one_struct_and_untyped_numbers() {
        let told = |outcome| String::from_utf8(Wire::Xml.encode(&outcome)).unwrap();
        assert!(told(Ok(Value::Int(5))).contains("<name>Value</name><value>5</value>"));
        assert!(told(Ok(Value::Void)).contains("<name>Value</name><value></value>"));
        let failure = told(Err(error("CODE", ["<a>"])));
        assert!(failure.contains("<value>Failure</value>"), "{failure}");
        assert!(failure.contains("<data><value>CODE</value><value>&lt;a&gt;</value></data>"));
    }

    #[test]
    fn entities_that_a_document_defines_are_not_read() {
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><methodCall><methodName>&a;</methodName></methodCall>";
        assert!(decode(bomb.as_bytes()).is_err());
        let deep = format!(
            "<methodCall><methodName>a.b</methodName><params><param>{}",
            "<value><array><data>".repeat(5000)
        );
        assert!(decode(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_call_cut_anywhere_is_an_error() {
        for end in 0..CALL.len() - 1 {
            assert!(decode(&CALL.as_bytes()[..end]).is_err() || end > CALL.len() - 14, "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_body_upsets_the_reader(body in "(<|>|/|methodCall|value|params|&|;|a| ){0,40}") {
            let _ = decode(body.as_bytes());
        }
    }
}
