//! Answers: the result of a message or its failure, out of the bytes of either wire.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::pieces::Pieces;
use super::xml::{Tokens, value_to_json};
use super::{FromWire, Protocol, Value, Wire};
use crate::failure::Failure;

/// Why bytes are no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    reason: String,
}

impl DecodeError {
    pub(crate) fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// Answers from this size on are read in pieces, where they are maps.
const LARGE: usize = 1 << 20;

/// Reads an answer straight into its result; what the server says went wrong is the inner error.
pub fn decode<R: FromWire>(
    protocol: Protocol,
    body: Vec<u8>,
) -> Result<Result<R, Failure>, DecodeError> {
    match protocol {
        Protocol::JsonRpc2 | Protocol::JsonRpc1 => json(body),
        Protocol::XmlRpc => xml(body),
    }
}

fn json<R: FromWire>(mut body: Vec<u8>) -> Result<Result<R, Failure>, DecodeError> {
    if body.len() >= LARGE && R::IN_PIECES {
        match Pieces::find(body) {
            Ok(pieces) => return R::from_pieces(pieces).map(Ok),
            Err(whole) => body = whole,
        }
    }
    let answer = match read_json(&body, &JSON_NAMES) {
        Err(error) if error.is_syntax() && mend_odd_floats(&mut body) => {
            read_json(&body, &JSON_NAMES)
        }
        answer => answer,
    };
    answer.map_err(DecodeError::new)?.outcome()
}

fn read_json<R: FromWire>(
    body: &[u8],
    names: &'static Names,
) -> Result<Answer<R>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let answer = reader.deserialize_any(AnswerVisitor { names, result: PhantomData })?;
    reader.end()?;
    Ok(answer)
}

/// Some servers write the floats that JSON lacks as bare words, which makes the whole answer unreadable.
/// Turns each into text of the same length, and says whether there were any.
pub(crate) fn mend_odd_floats(body: &mut [u8]) -> bool {
    const WORDS: [(&[u8], &[u8]); 6] = [
        (b"-Infinity", b"\"-inf\"   "),
        (b"Infinity", b"\"inf\"   "),
        (b"NaN", b"\"N\""),
        (b"nan", b"\"N\""),
        (b"-inf", b"\"-I\""),
        (b"inf", b"\"I\""),
    ];
    let (mut place, mut in_text, mut mended) = (0, false, false);
    while place < body.len() {
        match body[place] {
            b'\\' if in_text => place += 1,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'-' | b'I' | b'N' | b'n' | b'i' => {
                let rest = &mut body[place..];
                if let Some((word, text)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
                    rest[..word.len()].copy_from_slice(text);
                    place += word.len() - 1;
                    mended = true;
                }
            }
            _ => {}
        }
        place += 1;
    }
    mended
}

fn xml<R: FromWire>(body: Vec<u8>) -> Result<Result<R, Failure>, DecodeError> {
    let answer = xml_to_json(&body)?;
    drop(body);
    read_json(&answer, &XML_NAMES).map_err(DecodeError::new)?.outcome()
}

/// What is in an answer, as JSON.
fn xml_to_json(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    const AROUND: [&str; 3] = ["methodResponse", "params", "param"];
    let text = std::str::from_utf8(body).map_err(DecodeError::new)?;
    let mut tokens = Tokens::new(text);
    // Less than this, as tags are longer than the marks of JSON.
    let mut json = Vec::with_capacity(body.len() / 2);
    let mut read = || {
        AROUND.iter().try_for_each(|name| tokens.open(name))?;
        value_to_json(&mut tokens, &mut json)?;
        AROUND.iter().rev().try_for_each(|name| tokens.close(name))
    };
    read()
        .map_err(|error| DecodeError::new(format_args!("{error} at byte {}", tokens.position())))?;
    Ok(json)
}

/// Reads the result of a task, which is XML-RPC whatever the wire; old servers write plain text.
pub fn task_result<R: FromWire>(text: &str) -> Result<R, DecodeError> {
    let trimmed = text.trim();
    let mut json = Vec::new();
    if trimmed.starts_with("<value") {
        value_to_json(&mut Tokens::new(trimmed), &mut json).map_err(DecodeError::new)?;
    } else {
        serde_json::to_writer(&mut json, text).map_err(DecodeError::new)?;
    }
    let Wire(result) = serde_json::from_slice(&json).map_err(DecodeError::new)?;
    Ok(result)
}

struct Answer<R> {
    result: Option<R>,
    failure: Option<Failure>,
    /// There was a result, if only `null`.
    answered: bool,
}

impl<R: FromWire> Answer<R> {
    fn outcome(self) -> Result<Result<R, Failure>, DecodeError> {
        match (self.failure, self.result) {
            (Some(failure), _) => Ok(Err(failure)),
            (None, Some(result)) => Ok(Ok(result)),
            (None, None) if self.answered => Ok(Ok(R::default())),
            (None, None) => Err(DecodeError::new("it holds neither a result nor an error")),
        }
    }
}

/// What the members of an answer are called.
struct Names {
    result: &'static str,
    failure: &'static str,
    /// Whether a list may be an answer as it is: `system.listMethods` answers so on XML-RPC.
    bare_list: bool,
}

const JSON_NAMES: Names = Names { result: "result", failure: "error", bare_list: false };
const XML_NAMES: Names = Names { result: "Value", failure: "ErrorDescription", bare_list: true };

struct AnswerVisitor<R> {
    names: &'static Names,
    result: PhantomData<R>,
}

impl<'de, R: FromWire> Visitor<'de> for AnswerVisitor<R> {
    type Value = Answer<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Answer<R>, A::Error> {
        let mut answer = Answer { result: None, failure: None, answered: false };
        while let Some(member) = entries.next_key_seed(MemberSeed(self.names))? {
            match member {
                Member::Result => {
                    answer.answered = true;
                    let result: Option<Wire<R>> = entries.next_value()?;
                    answer.result = result.map(|Wire(result)| result);
                }
                Member::Failure => answer.failure = failure(entries.next_value()?)?,
                Member::Other => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(answer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Answer<R>, A::Error> {
        if !self.names.bare_list {
            return Err(Error::invalid_type(Unexpected::Seq, &self));
        }
        let result = R::from_wire(SeqAccessDeserializer::new(items))?;
        Ok(Answer { result: Some(result), failure: None, answered: true })
    }
}

enum Member {
    Result,
    Failure,
    Other,
}

struct MemberSeed(&'static Names);

impl<'de> DeserializeSeed<'de> for MemberSeed {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberSeed {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
        Ok(if name == self.0.result {
            Member::Result
        } else if name == self.0.failure {
            Member::Failure
        } else {
            Member::Other
        })
    }
}

/// A failure in any of the shapes that servers give it; `null` is none.
fn failure<E: Error>(value: Value) -> Result<Option<Failure>, E> {
    let mut parts = match value {
        Value::Null => return Ok(None),
        Value::Array(parts) => parts.into_iter().map(text).collect(),
        Value::Struct(mut members) => {
            let code = members.remove("message").map_or_else(String::new, text);
            let mut parts = vec![code];
            match members.remove("data") {
                Some(Value::Array(params)) => parts.extend(params.into_iter().map(text)),
                None | Some(Value::Null) => {}
                Some(param) => parts.push(text(param)),
            }
            parts
        }
        value => vec![text(value)],
    };
    if parts.first().is_none_or(String::is_empty) {
        return Err(E::custom("it fails without an error code"));
    }
    let code = parts.remove(0);
    Ok(Some(Failure::new(code, parts)))
}

/// Parameters of failures are text, but no failure is lost for one that is not.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        value => serde_json::to_string(&value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::class::Vm;
    use crate::wire::{Map, Ref, Request, ToWire as _, encode};
    use crate::{enums, vm};

    fn json<R: FromWire>(text: &str) -> Result<Result<R, Failure>, DecodeError> {
        decode(Protocol::JsonRpc2, text.as_bytes().to_vec())
    }

    fn xml<R: FromWire>(value: &str) -> Result<Result<R, Failure>, DecodeError> {
        let body = format!(
            "<?xml version=\"1.0\"?>\n<methodResponse><params><param>{value}</param></params></methodResponse>"
        );
        decode(Protocol::XmlRpc, body.into_bytes())
    }

    fn success(value: &str) -> String {
        format!(
            "<value><struct><member><name>Status</name><value>Success</value></member>\
             <member><name>Value</name>{value}</member></struct></value>"
        )
    }

    #[test]
    fn results_of_both_versions_of_json_rpc_are_read() {
        for text in [
            r#"{"jsonrpc":"2.0","result":"OpaqueRef:1","id":1}"#,
            r#"{"result":"OpaqueRef:1","error":null,"id":"1"}"#,
            r#" {"id":1,"error":null,"result":"OpaqueRef:1"} "#,
        ] {
            assert_eq!(json::<Ref<Vm>>(text).unwrap().unwrap(), Ref::from("OpaqueRef:1"));
        }
    }

    #[test]
    fn failures_are_read_in_every_shape() {
        for text in [
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":"VM_BAD_POWER_STATE","data":["OpaqueRef:1","halted"]},"id":1}"#,
            r#"{"result":null,"error":["VM_BAD_POWER_STATE","OpaqueRef:1","halted"],"id":1}"#,
            r#"{"jsonrpc":"2.0","error":["VM_BAD_POWER_STATE","OpaqueRef:1","halted"],"id":0}"#,
        ] {
            let failure = json::<()>(text).unwrap().unwrap_err();
            assert_eq!(failure.code(), "VM_BAD_POWER_STATE");
            assert_eq!(failure.params(), ["OpaqueRef:1", "halted"]);
        }
        let odd = r#"{"error":{"message":"HOST_OFFLINE","data":[7,null]},"id":1}"#;
        assert_eq!(json::<()>(odd).unwrap().unwrap_err().params(), ["7", "\"\""]);
        let bare = r#"{"error":{"message":"HOST_STILL_BOOTING"},"id":1}"#;
        assert!(json::<()>(bare).unwrap().unwrap_err().params().is_empty());
    }

    #[test]
    fn a_message_without_a_result_takes_any_value() {
        for value in ["\"\"", "null", "[1,{\"a\":2}]", "true"] {
            assert_eq!(json::<()>(&format!(r#"{{"result":{value},"id":1}}"#)).unwrap(), Ok(()));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["", "{", "[]", "7", "{}", r#"{"id":1}"#, r#"{"error":[],"id":1}"#, "<html>"] {
            assert!(json::<()>(text).is_err(), "{text}");
        }
        let twice = r#"{"result":"","id":1} {"result":"","id":1}"#;
        assert!(json::<()>(twice).is_err());
    }

    #[test]
    fn floats_that_json_lacks_do_not_spoil_the_answer() {
        let text = r#"{"result":{"a \" NaN":NaN,"b":-Infinity,"c":Infinity,"d":nan,"e":inf,"f":-inf,"g":"NaN","h":1},"id":1}"#;
        let floats = json::<Map<String, f64>>(text).unwrap().unwrap();
        assert!(floats.get("a \" NaN").unwrap().is_nan() && floats.get("g").unwrap().is_nan());
        assert_eq!(floats.get("b"), Some(&f64::NEG_INFINITY));
        assert_eq!(floats.get("e"), Some(&f64::INFINITY));
        assert_eq!(floats.get("f"), Some(&f64::NEG_INFINITY));
        assert_eq!(floats.get("h"), Some(&1.0));
    }

    #[test]
    fn nesting_without_end_is_refused_on_both_wires() {
        let deep = format!(r#"{{"result":{}"#, "[".repeat(1_000_000));
        assert!(json::<Value>(&deep).unwrap_err().to_string().contains("recursion"));
        let deep = success(&"<value><array><data>".repeat(1_000_000));
        assert!(xml::<Value>(&deep).unwrap_err().to_string().contains("deep"));
    }

    /// What Python's `XenAPI` receives for `VM.get_record`.
    const RECORD: &str = "<value><struct>
        <member><name>uuid</name><value>0165f154-ba3e-034e-6b27-5d271af109ba</value></member>
        <member><name>name_label</name><value>R&amp;D &lt;test&gt; &#8364;</value></member>
        <member><name>power_state</name><value>Running</value></member>
        <member><name>memory_static_max</name><value>4294967296</value></member>
        <member><name>VCPUs_max</name><value><i4>2</i4></value></member>
        <member><name>is_a_template</name><value><boolean>1</boolean></value></member>
        <member><name>HVM_shadow_multiplier</name><value><double>1.5</double></value></member>
        <member><name>snapshot_time</name><value><dateTime.iso8601>20260821T13:04:05Z</dateTime.iso8601></value></member>
        <member><name>allowed_operations</name><value><array><data>
            <value>start</value><value><string>fly</string></value></data></array></value></member>
        <member><name>other_config</name><value><struct>
            <member><name>base</name><value/></member></struct></value></member>
        <member><name>tags</name><value><array><data/></array></value></member>
        <member><name>VIFs</name><value></value></member>
        <member><name>novelty</name><value><struct/></value></member>
        </struct></value>";

    #[test]
    fn a_record_is_read_from_xml() {
        let record: vm::Record = xml(&success(RECORD)).unwrap().unwrap();
        assert_eq!(record.name_label, "R&D <test> €");
        assert_eq!(record.power_state, enums::VmPowerState::Running);
        assert_eq!((record.memory_static_max, record.vcpus_max), (4 << 30, 2));
        assert!(record.is_a_template);
        assert_eq!(record.snapshot_time.as_second(), 1_787_317_445);
        assert_eq!(
            record.allowed_operations,
            [enums::VmOperation::Start, enums::VmOperation::Unknown("fly".into())]
        );
        assert_eq!(record.other_config.get("base").map(String::as_str), Some(""));
        assert!(record.tags.is_empty() && record.vifs.is_empty());
        assert!(record.unknown_fields.contains_key("novelty"));
    }

    #[test]
    fn xml_that_is_cut_anywhere_is_refused() {
        let whole = success(RECORD);
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            assert!(decode::<vm::Record>(Protocol::XmlRpc, whole[..cut].into()).is_err(), "{cut}");
        }
    }

    #[test]
    fn failures_and_bare_arrays_are_read_from_xml() {
        let failure = "<value><struct><member><name>Status</name><value>Failure</value></member>\
            <member><name>ErrorDescription</name><value><array><data><value>SESSION_INVALID</value>\
            <value>OpaqueRef:1</value></data></array></value></member></struct></value>";
        assert_eq!(xml::<()>(failure).unwrap().unwrap_err().code(), "SESSION_INVALID");
        let bare = "<value><array><data><value>VM.start</value></data></array></value>";
        assert_eq!(xml::<Vec<String>>(bare).unwrap().unwrap(), ["VM.start"]);
    }

    #[test]
    fn entities_that_would_grow_are_refused() {
        let bomb = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]>\
                    <methodResponse><params><param><value>&b;</value></param></params></methodResponse>";
        let error = decode::<Value>(Protocol::XmlRpc, bomb.into()).unwrap_err().to_string();
        assert!(error.contains("not accepted"), "{error}");
    }

    #[test]
    fn results_of_tasks_are_read() {
        let one: Ref<Vm> = task_result("<value>OpaqueRef:1</value>").unwrap();
        assert_eq!(one, Ref::from("OpaqueRef:1"));
        assert_eq!(task_result::<Ref<Vm>>("OpaqueRef:1").unwrap(), one);
        let set = "<value><array><data><value>OpaqueRef:1</value></data></array></value>";
        assert_eq!(task_result::<Vec<Ref<Vm>>>(set).unwrap(), [one]);
        let text: String = task_result("<value><string>a &amp; b</string></value>").unwrap();
        assert_eq!(text, "a & b");
        assert_eq!(task_result::<()>(""), Ok(()));
        assert_eq!(task_result::<()>("<value></value>"), Ok(()));
    }

    /// The same as [`json`], in pieces whatever the size; nothing where that cannot be.
    fn in_pieces(text: &str) -> Option<Result<Map<String, Value>, DecodeError>> {
        Pieces::find(text.as_bytes().to_vec()).ok().map(Map::from_pieces)
    }

    #[test]
    fn an_answer_in_pieces_is_the_answer() {
        for text in [
            r#" { "jsonrpc" : "2.0" , "result" : { "a" : [1,"]\\\"}"] , "b":{} ,"c": 7 , "a":null, "d" :"x" } , "id":1 } "#,
            r#"{"result":{},"error":null,"id":1}"#,
            r#"{"result":{"a":{"b":NaN}},"id":1}"#,
            r#"{"id":"}","result":{"a\u0041":-1.5e3}}"#,
        ] {
            let whole = json::<Map<String, Value>>(text).unwrap().unwrap();
            assert_eq!(in_pieces(text).unwrap().unwrap(), whole, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_in_pieces_is_left_whole() {
        for text in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"result":"","id":1}"#,
            r#"{"result":{"a":1},"error":["X"]}"#,
            r#"{"result":{"a":1}"#,
            r#"{"result":{"a"}}"#,
            r#"{"result":{"a":1}} x"#,
            r#"{"result":{"a":}}"#,
        ] {
            assert!(in_pieces(text).is_none(), "{text}");
        }
        let error = in_pieces(r#"{"result":{"a":1,"b":[1 2]}}"#).unwrap().unwrap_err();
        assert!(error.to_string().starts_with("\"b\": "), "{error}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::String(number.to_string())),
            // JSON's reader rounds the last digit of some fractions the other way.
            any::<i32>().prop_map(|number| Value::Float(f64::from(number) / 4.0)),
            "[ -~é€\\n]{0,12}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::vec(("[a-zA-Z0-9_&<>:]{0,8}", inner), 0..5)
                    .prop_map(|members| Value::Struct(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_survive_xml(value in value()) {
            let request = Request::write("a", vec![value.clone()]).without_session();
            let call = String::from_utf8(encode(&request, None, Protocol::XmlRpc)).unwrap();
            let start = call.find("<param>").unwrap() + "<param>".len();
            let sent = &call[start..call.find("</param>").unwrap()];
            prop_assert_eq!(xml::<Value>(&success(sent)).unwrap().unwrap(), value);
        }

        #[test]
        fn values_survive_json(value in value()) {
            let body = serde_json::json!({ "result": value }).to_string();
            prop_assert_eq!(json::<Value>(&body).unwrap().unwrap(), value);
        }

        #[test]
        fn values_survive_being_read_in_pieces(value in value()) {
            let body = serde_json::json!({ "id": 1, "result": { "a": value, "b": value } }).to_string();
            let expected = Map::from([("a".to_owned(), value.clone()), ("b".to_owned(), value)]);
            prop_assert_eq!(in_pieces(&body), Some(Ok(expected)));
        }

        #[test]
        fn any_text_is_read_in_pieces_or_left_whole(text in "\\{\"result\": ?\\{[\\[\\]{}:,\"\\\\a1n ]{0,30}") {
            if let Some(Ok(map)) = in_pieces(&text) {
                prop_assert_eq!(json::<Map<String, Value>>(&text).unwrap().unwrap(), map);
            }
        }

        #[test]
        fn any_bytes_are_an_answer_or_refused(body: Vec<u8>) {
            let _ = decode::<vm::Record>(Protocol::XmlRpc, body.clone());
            let _ = decode::<vm::Record>(Protocol::JsonRpc2, body);
        }

        #[test]
        fn any_tags_are_an_answer_or_refused(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<value>", "</value>", "<array>", "<data>", "</data>", "</array>", "<struct>", "<member>",
                "<name>", "</name>", "</member>", "</struct>", "<value/>", "<i4>", "</i4>", "7", " ", "&lt;",
            ]), 0..40)
        ) {
            let _ = xml::<Value>(&success(&parts.concat()));
            let _ = xml::<vm::Record>(&success(&parts.concat()));
        }

        #[test]
        fn a_record_passed_to_a_constructor_keeps_what_was_set(name in "[ -~é]{0,20}", size: i64) {
            let record = vm::Record { name_label: name, memory_static_max: size, ..Default::default() };
            let sent = serde_json::to_string(&record.to_wire()).unwrap();
            let read: vm::Record = serde_json::from_str(&sent).unwrap();
            prop_assert_eq!(read, record);
        }
    }
}
