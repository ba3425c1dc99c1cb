//! XML as a row of tokens.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::XmlError;

/// One piece of a document. Attributes, comments and instructions are passed over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// `<name>`
    Open(&'a str),
    /// `</name>`
    Close(&'a str),
    /// `<name/>`
    Empty(&'a str),
    /// Text between tags, or a piece of it: an entity is a piece of its own.
    Text(Cow<'a, str>),
    /// The document is over.
    End,
}

/// The tokens of a document.
#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        // The reader passes over a mark of the byte order without counting it.
        let text = text.trim_start_matches('\u{feff}');
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        // Whoever reads the tokens knows what has to be closed.
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        Self { text, reader }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(self.text.len())
    }

    /// The next token.
    pub(crate) fn next(&mut self) -> Result<Token<'a>, XmlError> {
        loop {
            let start = self.position();
            let event =
                self.reader.read_event().map_err(|error| XmlError::new(&error.to_string()))?;
            return match event {
                Event::Start(tag) => self.name(start + 1, tag.name().as_ref()).map(Token::Open),
                Event::End(tag) => self.name(start + 2, tag.name().as_ref()).map(Token::Close),
                Event::Empty(tag) => self.name(start + 1, tag.name().as_ref()).map(Token::Empty),
                Event::Text(text) => Ok(Token::Text(text.into_inner())),
                Event::CData(data) => Ok(Token::Text(data.into_inner())),
                Event::GeneralRef(entity) => {
                    character(&entity).map(|letter| Token::Text(String::from(letter).into()))
                }
                Event::DocType(_) => {
                    Err(XmlError::new("document types and entities are not accepted"))
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
                Event::Eof => Ok(Token::End),
            };
        }
    }

    /// A tag's name where it stands in the document.
    fn name(&self, start: usize, name: &str) -> Result<&'a str, XmlError> {
        match self.text.get(start..start + name.len()) {
            Some(found) if !found.is_empty() => Ok(found),
            _ => Err(XmlError::new("a tag has no name")),
        }
    }

    /// The next token that is not just space between tags.
    pub(crate) fn next_markup(&mut self) -> Result<Token<'a>, XmlError> {
        loop {
            match self.next()? {
                Token::Text(text) if text.trim_ascii().is_empty() => {}
                token => return Ok(token),
            }
        }
    }

    /// Reads `<name>` or fails.
    pub(crate) fn open(&mut self, name: &str) -> Result<(), XmlError> {
        match self.next_markup()? {
            Token::Open(found) if found == name => Ok(()),
            token => Err(XmlError::expected(&format!("<{name}>"), &token)),
        }
    }

    /// Reads `</name>` or fails.
    pub(crate) fn close(&mut self, name: &str) -> Result<(), XmlError> {
        match self.next_markup()? {
            Token::Close(found) if found == name => Ok(()),
            token => Err(XmlError::expected(&format!("</{name}>"), &token)),
        }
    }

    /// Reads text up to `</name>`, all of it.
    pub(crate) fn text_until(&mut self, name: &str) -> Result<Cow<'a, str>, XmlError> {
        let mut found = Cow::Borrowed("");
        loop {
            match self.next()? {
                Token::Text(text) if found.is_empty() => found = text,
                Token::Text(text) => found.to_mut().push_str(&text),
                Token::Close(close) if close == name => return Ok(found),
                token => return Err(XmlError::expected(&format!("</{name}>"), &token)),
            }
        }
    }

    /// Reads the rest of an element whose tag has been read, whatever is in it.
    pub(crate) fn skip(&mut self) -> Result<(), XmlError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next()? {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth -= 1,
                Token::Empty(_) | Token::Text(_) => {}
                Token::End => return Err(XmlError::new("it ends within an element")),
            }
        }
        Ok(())
    }
}

/// What an entity stands for: one of the five of XML, or a character by its number.
fn character(entity: &BytesRef) -> Result<char, XmlError> {
    let refuse = || {
        let name: String = entity.chars().take(20).collect();
        XmlError::new(&format!("the entity `&{name};` is not accepted"))
    };
    match &**entity {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => entity.resolve_char_ref().ok().flatten().ok_or_else(refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Token<'_>>, XmlError> {
        let mut tokens = Tokens::new(text);
        let mut found = Vec::new();
        loop {
            match tokens.next()? {
                Token::End => return Ok(found),
                Token::Text(more) => match found.last_mut() {
                    Some(Token::Text(text)) => text.to_mut().push_str(&more),
                    _ => found.push(Token::Text(more)),
                },
                token => found.push(token),
            }
        }
    }

    #[test]
    fn a_document_is_read_token_by_token() {
        let text = "<?xml version='1.0'?><!-- <a> --><a b='>' c=\"'\">x &lt;&#65;&#x42;<b/><![CDATA[<&]]></a >";
        assert_eq!(
            all(text).unwrap(),
            [
                Token::Open("a"),
                Token::Text("x <AB".into()),
                Token::Empty("b"),
                Token::Text("<&".into()),
                Token::Close("a"),
            ]
        );
    }

    #[test]
    fn an_element_is_skipped_with_all_that_is_in_it() {
        let mut tokens = Tokens::new("<a>x<b><a/></b></a><c/>");
        tokens.open("a").unwrap();
        tokens.skip().unwrap();
        assert_eq!(tokens.next().unwrap(), Token::Empty("c"));
        assert!(tokens.skip().is_err());
    }

    #[test]
    fn marks_of_the_byte_order_are_passed_over() {
        for text in ["\u{feff}<a>x</a>", "\u{feff}\u{feff}<a>x</a>"] {
            let expected = [Token::Open("a"), Token::Text("x".into()), Token::Close("a")];
            assert_eq!(all(text).unwrap(), expected);
        }
        assert_eq!(all("\u{feff}a\u{feff}").unwrap(), [Token::Text("a\u{feff}".into())]);
    }

    #[test]
    fn what_could_grow_or_is_broken_is_refused() {
        for text in [
            "<!DOCTYPE lolz [<!ENTITY lol \"lol\">]><a/>",
            "<a>&lol;</a>",
            "<a>&#xD800;</a>",
            "<a>& b</a>",
            "<a",
            "<!-- ",
            "< a>",
            "<>",
        ] {
            assert!(all(text).is_err(), "{text}");
        }
    }
}
