//! Answers: the result of a message or its failure, out of the bytes of either wire.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::xml::{Tokens, XmlError, XmlValue};
use super::{FromWire, Protocol, Value, Wire};
use crate::failure::Failure;

/// Why bytes are no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    reason: String,
}

impl DecodeError {
    fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// Reads an answer straight into its result; what the server says went wrong is the inner error.
pub fn decode<R: FromWire>(
    protocol: Protocol,
    body: Vec<u8>,
) -> Result<Result<R, Failure>, DecodeError> {
    match protocol {
        Protocol::JsonRpc2 | Protocol::JsonRpc1 => json(body),
        Protocol::XmlRpc => xml(&body),
    }
}

fn json<R: FromWire>(mut body: Vec<u8>) -> Result<Result<R, Failure>, DecodeError> {
    let answer = match read_json(&body) {
        Err(error) if error.is_syntax() && mend_odd_floats(&mut body) => read_json(&body),
        answer => answer,
    };
    answer.map_err(DecodeError::new)?.outcome()
}

fn read_json<R: FromWire>(body: &[u8]) -> Result<Answer<R>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let answer =
        reader.deserialize_map(AnswerVisitor { names: &JSON_NAMES, result: PhantomData })?;
    reader.end()?;
    Ok(answer)
}

/// Some servers write the floats that JSON lacks as bare words, which makes the whole answer unreadable.
/// Turns each into text of the same length, and says whether there were any.
fn mend_odd_floats(body: &mut [u8]) -> bool {
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

fn xml<R: FromWire>(body: &[u8]) -> Result<Result<R, Failure>, DecodeError> {
    let text = std::str::from_utf8(body).map_err(DecodeError::new)?;
    let mut tokens = Tokens::new(text);
    let answer = read_xml(&mut tokens)
        .map_err(|error| DecodeError::new(format_args!("{error} at byte {}", tokens.position())))?;
    answer.outcome()
}

fn read_xml<R: FromWire>(tokens: &mut Tokens<'_>) -> Result<Answer<R>, XmlError> {
    tokens.open("methodResponse")?;
    tokens.open("params")?;
    tokens.open("param")?;
    let visitor = AnswerVisitor { names: &XML_NAMES, result: PhantomData };
    let answer = XmlValue::new(tokens).deserialize_map(visitor)?;
    tokens.close("param")?;
    tokens.close("params")?;
    tokens.close("methodResponse")?;
    Ok(answer)
}

/// Reads the result of a task, which is XML-RPC whatever the wire; old servers write plain text.
pub fn task_result<R: FromWire>(text: &str) -> Result<R, DecodeError> {
    let trimmed = text.trim();
    let result = if trimmed.starts_with("<value") {
        R::from_wire(XmlValue::new(&mut Tokens::new(trimmed)))
    } else {
        R::from_wire(StrDeserializer::<XmlError>::new(text))
    };
    result.map_err(DecodeError::new)
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
}

const JSON_NAMES: Names = Names { result: "result", failure: "error" };
const XML_NAMES: Names = Names { result: "Value", failure: "ErrorDescription" };

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

    /// `system.listMethods` answers without the usual wrapping on XML-RPC.
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Answer<R>, A::Error> {
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
