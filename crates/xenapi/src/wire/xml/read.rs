//! XML-RPC values for serde.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::super::time;
use super::tokens::{Token, Tokens};

/// How deep sets and maps may lie in each other. The data model has four levels.
const DEPTH: u8 = 64;

/// Why text is no XML-RPC.
#[derive(Debug)]
pub(crate) struct XmlError(String);

impl XmlError {
    pub(crate) fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }

    pub(crate) fn expected(what: &str, found: &Token<'_>) -> Self {
        let found = match found {
            Token::Open(name) => format!("<{}>", short(name)),
            Token::Close(name) => format!("</{}>", short(name)),
            Token::Empty(name) => format!("<{}/>", short(name)),
            Token::Text(text) => format!("the text {:?}", short(text)),
            Token::End => "the end".into(),
        };
        Self(format!("expected {what} and found {found}"))
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for XmlError {}

impl de::Error for XmlError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// A `<value>`, of which not even the tag has been read.
pub(crate) struct XmlValue<'t, 'de> {
    tokens: &'t mut Tokens<'de>,
    depth: u8,
}

impl<'t, 'de> XmlValue<'t, 'de> {
    pub(crate) fn new(tokens: &'t mut Tokens<'de>) -> Self {
        Self { tokens, depth: 0 }
    }
}

impl<'de> Deserializer<'de> for XmlValue<'_, 'de> {
    type Error = XmlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        match self.tokens.next_markup()? {
            Token::Open("value") => {
                Content { tokens: self.tokens, depth: self.depth }.read(visitor)
            }
            Token::Empty("value") => visitor.visit_str(""),
            token => Err(XmlError::expected("<value>", &token)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What is in a `<value>` whose tag has been read.
struct Content<'t, 'de> {
    tokens: &'t mut Tokens<'de>,
    depth: u8,
}

impl<'de> Content<'_, 'de> {
    fn read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        match self.tokens.next()? {
            // Untyped text is a string, unless it is the space before a type.
            Token::Text(text) => self.after_text(text, visitor),
            Token::Close("value") => visitor.visit_str(""),
            token => self.typed(token, visitor),
        }
    }

    fn after_text<V: Visitor<'de>>(
        self,
        mut text: Cow<'de, str>,
        visitor: V,
    ) -> Result<V::Value, XmlError> {
        loop {
            match self.tokens.next()? {
                Token::Text(more) => text.to_mut().push_str(&more),
                Token::Close("value") => return visit_text(text, visitor),
                token if text.trim_ascii().is_empty() => return self.typed(token, visitor),
                token => return Err(XmlError::expected("</value>", &token)),
            }
        }
    }

    fn typed<V: Visitor<'de>>(self, token: Token<'de>, visitor: V) -> Result<V::Value, XmlError> {
        let Content { tokens, depth } = self;
        let value = match token {
            Token::Open("array") => {
                visitor.visit_seq(Array { tokens, depth: deeper(depth)?, state: Place::Before })?
            }
            Token::Open("struct") => visitor.visit_map(Struct { tokens, depth: deeper(depth)? })?,
            Token::Open("nil") => {
                tokens.close("nil")?;
                visitor.visit_unit()?
            }
            Token::Open(kind) => scalar(kind, tokens.text_until(kind)?, visitor)?,
            Token::Empty("nil") => visitor.visit_unit()?,
            Token::Empty("struct" | "array" | "string" | "base64") => visitor.visit_str("")?,
            token => return Err(XmlError::expected("a type", &token)),
        };
        tokens.close("value")?;
        Ok(value)
    }
}

fn deeper(depth: u8) -> Result<u8, XmlError> {
    if depth == DEPTH {
        return Err(XmlError::new(&format!("values lie more than {DEPTH} deep in each other")));
    }
    Ok(depth + 1)
}

fn scalar<'de, V: Visitor<'de>>(
    kind: &str,
    text: Cow<'de, str>,
    visitor: V,
) -> Result<V::Value, XmlError> {
    let wrong = || XmlError(format!("{:?} is no <{kind}>", short(&text)));
    match kind {
        "string" | "dateTime.iso8601" | "base64" => visit_text(text, visitor),
        "int" | "i4" | "i8" => visitor.visit_i64(text.trim().parse().map_err(|_| wrong())?),
        "double" => visitor.visit_f64(time::parse_float(&text).ok_or_else(wrong)?),
        "boolean" => match text.trim() {
            "1" | "true" => visitor.visit_bool(true),
            "0" | "false" => visitor.visit_bool(false),
            _ => Err(wrong()),
        },
        _ => Err(XmlError(format!("<{}> is no type of XML-RPC", short(kind)))),
    }
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, XmlError> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

enum Place {
    Before,
    Within,
    After,
}

struct Array<'t, 'de> {
    tokens: &'t mut Tokens<'de>,
    depth: u8,
    state: Place,
}

impl<'de> SeqAccess<'de> for Array<'_, 'de> {
    type Error = XmlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, XmlError> {
        if let Place::After = self.state {
            return Ok(None);
        }
        if let Place::Before = self.state {
            match self.tokens.next_markup()? {
                Token::Open("data") => self.state = Place::Within,
                Token::Empty("data") => return self.end(),
                token => return Err(XmlError::expected("<data>", &token)),
            }
        }
        match self.tokens.next_markup()? {
            Token::Open("value") => {
                let content = Content { tokens: self.tokens, depth: self.depth };
                seed.deserialize(Opened(content)).map(Some)
            }
            Token::Empty("value") => seed.deserialize(Nothing).map(Some),
            Token::Close("data") => self.end(),
            token => Err(XmlError::expected("<value> or </data>", &token)),
        }
    }
}

impl Array<'_, '_> {
    fn end<T>(&mut self) -> Result<Option<T>, XmlError> {
        self.state = Place::After;
        self.tokens.close("array")?;
        Ok(None)
    }
}

struct Struct<'t, 'de> {
    tokens: &'t mut Tokens<'de>,
    depth: u8,
}

impl<'de> MapAccess<'de> for Struct<'_, 'de> {
    type Error = XmlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, XmlError> {
        match self.tokens.next_markup()? {
            Token::Open("member") => {}
            Token::Close("struct") => return Ok(None),
            token => return Err(XmlError::expected("<member> or </struct>", &token)),
        }
        self.tokens.open("name")?;
        let name = self.tokens.text_until("name")?;
        seed.deserialize(de::value::CowStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, XmlError> {
        let value = seed.deserialize(XmlValue { tokens: self.tokens, depth: self.depth })?;
        self.tokens.close("member")?;
        Ok(value)
    }
}

/// A value whose tag has been read.
struct Opened<'t, 'de>(Content<'t, 'de>);

impl<'de> Deserializer<'de> for Opened<'_, 'de> {
    type Error = XmlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        self.0.read(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// `<value/>`
struct Nothing;

impl<'de> Deserializer<'de> for Nothing {
    type Error = XmlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        visitor.visit_str("")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, XmlError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
