//! XML-RPC values as JSON, for which there is one reader of every type of the data model.

use std::borrow::Cow;
use std::fmt;

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

/// Reads a `<value>`, of which not even the tag has been read, and writes it to the end of `json`.
pub(crate) fn value_to_json(tokens: &mut Tokens<'_>, json: &mut Vec<u8>) -> Result<(), XmlError> {
    Values { tokens, json, depth: 0 }.value()
}

/// Values on their way from tokens to JSON.
struct Values<'t, 'a> {
    tokens: &'t mut Tokens<'a>,
    json: &'t mut Vec<u8>,
    depth: u8,
}

impl<'a> Values<'_, 'a> {
    fn value(&mut self) -> Result<(), XmlError> {
        match self.tokens.next_markup()? {
            Token::Open("value") => self.content(),
            Token::Empty("value") => self.text(""),
            token => Err(XmlError::expected("<value>", &token)),
        }
    }

    /// What is in a `<value>` whose tag has been read.
    fn content(&mut self) -> Result<(), XmlError> {
        match self.tokens.next()? {
            // Untyped text is a string, unless it is the space before a type.
            Token::Text(text) => self.after_text(text),
            Token::Close("value") => self.text(""),
            token => self.typed(&token),
        }
    }

    fn after_text(&mut self, mut text: Cow<'a, str>) -> Result<(), XmlError> {
        loop {
            match self.tokens.next()? {
                Token::Text(more) => text.to_mut().push_str(&more),
                Token::Close("value") => return self.text(&text),
                token if text.trim_ascii().is_empty() => return self.typed(&token),
                token => return Err(XmlError::expected("</value>", &token)),
            }
        }
    }

    fn typed(&mut self, token: &Token<'a>) -> Result<(), XmlError> {
        match token {
            Token::Open("array") => self.deeper(Self::array)?,
            Token::Open("struct") => self.deeper(Self::members)?,
            Token::Open("nil") => {
                self.tokens.close("nil")?;
                self.word("null");
            }
            Token::Open(kind) => {
                let text = self.tokens.text_until(kind)?;
                self.scalar(kind, &text)?;
            }
            Token::Empty("nil") => self.word("null"),
            Token::Empty("struct" | "array" | "string" | "base64") => self.text("")?,
            token => return Err(XmlError::expected("a type", token)),
        }
        self.tokens.close("value")
    }

    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), XmlError>,
    ) -> Result<(), XmlError> {
        if self.depth == DEPTH {
            return Err(XmlError::new(&format!("values lie more than {DEPTH} deep in each other")));
        }
        self.depth += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), XmlError> {
        self.json.push(b'[');
        match self.tokens.next_markup()? {
            Token::Open("data") => self.items()?,
            Token::Empty("data") => {}
            token => return Err(XmlError::expected("<data>", &token)),
        }
        self.json.push(b']');
        self.tokens.close("array")
    }

    fn items(&mut self) -> Result<(), XmlError> {
        for index in 0.. {
            let token = self.tokens.next_markup()?;
            if token == Token::Close("data") {
                break;
            }
            self.comma_after(index);
            match token {
                Token::Open("value") => self.content()?,
                Token::Empty("value") => self.text("")?,
                token => return Err(XmlError::expected("<value> or </data>", &token)),
            }
        }
        Ok(())
    }

    fn members(&mut self) -> Result<(), XmlError> {
        self.json.push(b'{');
        for index in 0.. {
            match self.tokens.next_markup()? {
                Token::Open("member") => {}
                Token::Close("struct") => break,
                token => return Err(XmlError::expected("<member> or </struct>", &token)),
            }
            self.comma_after(index);
            self.tokens.open("name")?;
            let name = self.tokens.text_until("name")?;
            self.text(&name)?;
            self.json.push(b':');
            self.value()?;
            self.tokens.close("member")?;
        }
        self.json.push(b'}');
        Ok(())
    }

    fn scalar(&mut self, kind: &str, text: &str) -> Result<(), XmlError> {
        let wrong = || XmlError(format!("{:?} is no <{kind}>", short(text)));
        match kind {
            "string" | "dateTime.iso8601" | "base64" => self.text(text)?,
            "int" | "i4" | "i8" => {
                let number: i64 = text.trim().parse().map_err(|_| wrong())?;
                self.word(&number.to_string());
            }
            "double" => {
                let number = time::parse_float(text).ok_or_else(wrong)?;
                if number.is_finite() {
                    self.word(&format!("{number:?}"));
                } else {
                    // JSON has no such numbers; as text they are understood on both wires.
                    self.text(text.trim())?;
                }
            }
            "boolean" => match text.trim() {
                "1" | "true" => self.word("true"),
                "0" | "false" => self.word("false"),
                _ => return Err(wrong()),
            },
            _ => return Err(XmlError(format!("<{}> is no type of XML-RPC", short(kind)))),
        }
        Ok(())
    }

    fn comma_after(&mut self, index: usize) {
        if index > 0 {
            self.json.push(b',');
        }
    }

    fn word(&mut self, word: &str) {
        self.json.extend_from_slice(word.as_bytes());
    }

    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        serde_json::to_writer(&mut *self.json, text)
            .map_err(|error| XmlError::new(&error.to_string()))
    }
}
