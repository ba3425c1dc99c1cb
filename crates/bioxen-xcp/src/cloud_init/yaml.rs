//! Documents as cloud-init's reader takes them.
//!
//! That reader follows YAML 1.1, where `no` is a boolean and `0644` is 420. So that nothing is taken
//! for what it is not, what we write is JSON, which is YAML too, with every text in quotes. What others
//! wrote without quotes stays without: the guest's own reader says what it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

/// How deep lists and maps may lie in each other.
const DEEPEST: usize = 64;

/// How many values a document may have, those behind aliases counted each time.
const MOST_NODES: usize = 100_000;

/// The longest key that the guest's reader takes for one, with a margin.
const LONGEST_KEY: usize = 500;

/// A value of a document.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Node {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Scalar, Node)>),
}

/// A value without parts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Whether it stands without quotes, and may thus be something else than a text.
    plain: bool,
    tag: Option<&'static str>,
}

impl Scalar {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), plain: false, tag: None }
    }
}

impl Node {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar::text(text))
    }

    /// A number or a boolean.
    pub(super) fn plain(value: impl ToString + Copy) -> Self {
        Self::Scalar(Scalar { text: value.to_string(), plain: true, tag: None })
    }

    pub(super) fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::text(text.to_string())).collect())
    }

    pub(super) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Scalar::text(key), value)).collect())
    }

    /// A value of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
            }
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    /// Whether there is nothing.
    pub(super) fn is_null(&self) -> bool {
        *self == Self::plain("~")
    }

    /// The text of a value without parts.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) => Some(&scalar.text),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Writes the document, with a line break at its end.
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        write_node(&mut out, self, 0);
        out.push('\n');
        out
    }
}

fn write_node(out: &mut String, node: &Node, depth: usize) {
    match node {
        Node::Scalar(scalar) => write_scalar(out, scalar),
        Node::List(items) => write_items(out, ['[', ']'], items, depth, |out, item| {
            write_node(out, item, depth + 1);
        }),
        Node::Map(entries) => write_items(out, ['{', '}'], entries, depth, |out, (key, value)| {
            write_scalar(out, key);
            out.push_str(": ");
            write_node(out, value, depth + 1);
        }),
    }
}

fn write_items<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: &[T],
    depth: usize,
    mut write_item: impl FnMut(&mut String, &T),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n("  ", depth + 1));
        write_item(out, item);
    }
    if !items.is_empty() {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
    out.push(close);
}

fn write_scalar(out: &mut String, scalar: &Scalar) {
    if let Some(tag) = scalar.tag {
        let _ = write!(out, "!!{tag} ");
    } else if scalar.plain && stands_alone(&scalar.text) {
        return out.push_str(&scalar.text);
    }
    out.push('"');
    for letter in scalar.text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if must_be_escaped(letter) => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// Whether the guest's reader would refuse the character as it is, or take it for a line break.
fn must_be_escaped(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text without quotes ends where it should inside of brackets. Others were read as texts
/// anyway: nothing else has such characters. Colons are for times only; old readers stop at others.
fn stands_alone(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+~-".contains(&byte);
    let is_time = |byte: u8| byte.is_ascii_digit() || b":_.+-".contains(&byte);
    let has_body = text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    let has_edges = !text.starts_with(':') && !text.ends_with(':');
    (has_body && has_edges && (text.bytes().all(is_word) || text.bytes().all(is_time)))
        || matches!(text, "~" | "<<")
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum YamlError {
    #[error("line {line}: {reason}")]
    Syntax { line: usize, reason: String },
    #[error("line {line}: {reason}")]
    Refused { line: usize, reason: &'static str },
    #[error("it is cut short")]
    Short,
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        Self::Syntax { line: error.marker().line(), reason: error.info().clone() }
    }
}

/// Reads one document. One of nothing but comments is null, and null is `~`.
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader { events: Parser::new_from_str(text), known: HashMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or_else(|| Node::plain("~"))),
            Event::DocumentStart(..) if document.is_some() => {
                return Err(refused(&span, "it is a second document"));
            }
            Event::DocumentStart(..) => {
                let first = reader.next()?;
                document = Some(reader.node(first, 0)?);
            }
            // Only the ends of documents and the start of the stream are left.
            _ => {}
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    /// What has an anchor, and how many values it has.
    known: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        Ok(self.events.next().ok_or(YamlError::Short)??)
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, YamlError> {
        if depth > DEEPEST {
            return Err(refused(&span, "it is too deep"));
        }
        self.count(1, &span)?;
        let before = self.nodes;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (Node::Scalar(scalar(text, style, tag.as_deref(), &span)?), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", &span)?;
                (Node::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map", &span)?;
                (Node::Map(self.entries(depth)?), anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, count)) = self.known.get(&anchor).cloned() else {
                    return Err(refused(&span, "an alias stands for nothing"));
                };
                self.count(count, &span)?;
                return Ok(node);
            }
            _ => return Err(refused(&span, "a value is missing")),
        };
        if anchor != 0 {
            self.known.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Scalar, Node)>, YamlError> {
        let mut entries: Vec<(Scalar, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let Node::Scalar(key) = self.node((event, span), depth + 1)? else {
                return Err(refused(&span, "a key is a list or a map"));
            };
            if key.text.len() > LONGEST_KEY || key.text.contains('\n') {
                return Err(refused(&span, "a key is too long"));
            }
            if entries.iter().any(|(other, _)| other.text == key.text) {
                return Err(refused(&span, "a key stands twice in one map"));
            }
            let value = self.next()?;
            entries.push((key, self.node(value, depth + 1)?));
        }
    }

    fn count(&mut self, more: usize, span: &Span) -> Result<(), YamlError> {
        self.nodes += more;
        if self.nodes > MOST_NODES { Err(refused(span, "it has too many values")) } else { Ok(()) }
    }
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: &Span,
) -> Result<Scalar, YamlError> {
    let plain = style == ScalarStyle::Plain;
    let text = text.into_owned();
    let Some(tag) = tag else { return Ok(Scalar { text, plain, tag: None }) };
    let tag = match (tag.handle(), tag.suffix()) {
        ("tag:yaml.org,2002:", "str") | ("!", "") | ("", "!") => None,
        ("tag:yaml.org,2002:", name) => {
            let known = ["binary", "int", "float", "bool", "null"];
            let found = known.into_iter().find(|known| *known == name);
            Some(found.ok_or_else(|| refused(span, "it has a tag that cloud-init does not know"))?)
        }
        _ => return Err(refused(span, "it has a tag that cloud-init does not know")),
    };
    Ok(Scalar { text, plain: false, tag })
}

fn collection_tag(tag: Option<&Tag>, kind: &str, span: &Span) -> Result<(), YamlError> {
    match tag {
        Some(tag) if (tag.handle(), tag.suffix()) != ("tag:yaml.org,2002:", kind) => {
            Err(refused(span, "it has a tag that cloud-init does not know"))
        }
        Some(_) | None => Ok(()),
    }
}

fn refused(span: &Span, reason: &'static str) -> YamlError {
    YamlError::Refused { line: span.start.line(), reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_quoted_and_what_had_no_quotes_has_none() {
        let text = "a: yes\nb: 'yes'\nc: 0644\nd: \"0644\"\ne:\nf: [~, -1.5, 12:30:45]\ng: !!binary aGk=\n";
        let written = "{\n  a: yes,\n  b: \"yes\",\n  c: 0644,\n  d: \"0644\",\n  e: ~,\n  f: [\n    ~,\n    \
                       -1.5,\n    12:30:45\n  ],\n  g: !!binary \"aGk=\"\n}\n";
        assert_eq!(parse(text).unwrap().write(), written);
    }

    #[test]
    fn a_text_without_quotes_that_would_not_stand_in_brackets_gets_them() {
        let node = parse("- echo a, b\n- a]\n- x #y\n- 'a: b'\n- --\n- http://a\n").unwrap();
        let expected =
            "[\n  \"echo a, b\",\n  \"a]\",\n  x,\n  \"a: b\",\n  \"--\",\n  \"http://a\"\n]\n";
        assert_eq!(node.write(), expected);
    }

    #[test]
    fn aliases_stand_for_what_they_name_and_cannot_blow_up() {
        assert_eq!(
            parse("a: &x [1]\nb: *x\n").unwrap().write(),
            parse("a: [1]\nb: [1]\n").unwrap().write()
        );
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = format!("*a{}, ", level - 1).repeat(9);
            let _ = writeln!(bomb, "a{level}: &a{level} [{aliases}]");
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn documents_that_cannot_be_merged_are_refused_with_the_line() {
        for (text, line) in [
            ("a: 1\na: 2\n", 2),
            ("a: !python/x y\n", 1),
            ("a: 1\n---\nb: 1\n", 2),
            ("\n[a]: b\n", 2),
        ] {
            let error = parse(text).err().expect(text).to_string();
            assert!(error.starts_with(&format!("line {line}: ")), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_the_same_after_it_was_written_and_read(text in any::<String>()) {
            let written = Node::texts([&text]).write();
            let Node::List(items) = parse(&written).unwrap() else { panic!("{written}") };
            prop_assert_eq!(items[0].as_text(), Some(text.as_str()));
            // It is JSON.
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), vec![text]);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "([-:?,\\[\\]{}#&*!|>'\"%@` \n\ta0~<]|\\PC){0,80}") {
            if let Ok(node) = parse(&text) {
                let _ = parse(&node.write());
            }
        }
    }
}
