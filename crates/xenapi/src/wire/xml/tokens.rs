//! XML as a row of tokens.

use std::borrow::Cow;

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
    /// Text between tags, with its entities replaced.
    Text(Cow<'a, str>),
    /// The document is over.
    End,
}

/// The tokens of a document.
#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    rest: &'a str,
    length: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text, length: text.len() }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The next token.
    pub(crate) fn next(&mut self) -> Result<Token<'a>, XmlError> {
        loop {
            if self.rest.is_empty() {
                return Ok(Token::End);
            }
            let Some(markup) = self.rest.strip_prefix('<') else {
                let (text, rest) =
                    self.rest.split_at(self.rest.find('<').unwrap_or(self.rest.len()));
                self.rest = rest;
                return unescape(text).map(Token::Text);
            };
            if let Some(text) = markup.strip_prefix("![CDATA[") {
                return self.up_to(text, "]]>").map(|text| Token::Text(text.into()));
            } else if let Some(comment) = markup.strip_prefix("!--") {
                self.up_to(comment, "-->")?;
            } else if let Some(instruction) = markup.strip_prefix('?') {
                self.up_to(instruction, "?>")?;
            } else if markup.starts_with('!') {
                return Err(XmlError::new("document types and entities are not accepted"));
            } else {
                return self.tag(markup);
            }
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

    fn up_to(&mut self, text: &'a str, end: &str) -> Result<&'a str, XmlError> {
        let (inside, rest) = text
            .split_once(end)
            .ok_or_else(|| XmlError::new(&format!("it ends before `{end}`")))?;
        self.rest = rest;
        Ok(inside)
    }

    fn tag(&mut self, markup: &'a str) -> Result<Token<'a>, XmlError> {
        let end = tag_end(markup).ok_or_else(|| XmlError::new("it ends within a tag"))?;
        let inside = &markup[..end];
        self.rest = &markup[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            return Ok(Token::Close(name.trim_ascii()));
        }
        let (inside, empty) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let name = inside.split_ascii_whitespace().next().unwrap_or("");
        if name.is_empty() || inside.starts_with(|letter: char| letter.is_ascii_whitespace()) {
            return Err(XmlError::new("a tag has no name"));
        }
        Ok(if empty { Token::Empty(name) } else { Token::Open(name) })
    }
}

/// Where the tag's `>` is, which may also stand in the quotes of an attribute.
fn tag_end(markup: &str) -> Option<usize> {
    let mut quote = None;
    for (index, byte) in markup.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(index),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Result<Cow<'_, str>, XmlError> {
    let Some(first) = text.find('&') else { return Ok(text.into()) };
    let (mut plain, mut rest) = (text[..first].to_owned(), &text[first..]);
    while let Some(start) = rest.find('&') {
        plain.push_str(&rest[..start]);
        let (name, after) = rest[start + 1..]
            .split_once(';')
            .ok_or_else(|| XmlError::new("an entity has no end"))?;
        plain.push(entity(name)?);
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain.into())
}

fn entity(name: &str) -> Result<char, XmlError> {
    let number = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => name.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
            Some(number) => u32::from_str_radix(number, 16).ok(),
            None => number.parse().ok(),
        }),
    };
    number.and_then(char::from_u32).ok_or_else(|| {
        let name: String = name.chars().take(20).collect();
        XmlError::new(&format!("the entity `&{name};` is not accepted"))
    })
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
