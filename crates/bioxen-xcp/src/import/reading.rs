//! Old files as a flat list of keys and values.

use serde_json::{Map, Value as Json};

use super::spellings::{Meaning, meaning};

/// A key and its value.
pub(super) struct Entry {
    /// The key as it stands in the file, with dots where it is within others.
    pub(super) key: String,
    /// Its last part.
    pub(super) name: String,
    pub(super) value: Value,
    /// What the table of pools calls the pool that this is said of.
    pub(super) section: Option<String>,
}

/// A value.
pub(super) enum Value {
    Text(String),
    /// None that could be text, and why.
    Other(&'static str),
}

impl Value {
    pub(super) fn text(&self) -> Result<String, &'static str> {
        match self {
            Self::Text(text) if text.is_empty() => Err("it is empty"),
            Self::Text(text) => Ok(text.clone()),
            Self::Other(why) => Err(why),
        }
    }
}

/// Why a text is no old configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It says nothing.
    #[error("it is empty")]
    Empty,
    /// It begins as JSON, and is none.
    #[error("it is no JSON")]
    Json(#[source] serde_json::Error),
    /// It is JSON, and not an object.
    #[error("it is JSON, and not an object of settings")]
    NoObject,
    /// A line of it is neither a setting nor a comment.
    #[error("line {line} is no KEY=VALUE")]
    Line {
        /// Which, counted from 1.
        line: usize,
    },
}

/// Reads JSON where the text begins as JSON does, and otherwise lines.
pub(super) fn read(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    match text.trim_start().chars().next() {
        None => return Err(Unreadable::Empty),
        Some('{' | '[') => match serde_json::from_str(text).map_err(Unreadable::Json)? {
            Json::Object(object) => walk(object, "", None, &mut entries),
            _ => return Err(Unreadable::NoObject),
        },
        Some(_) => {
            for (index, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                entries.push(variable(line).ok_or(Unreadable::Line { line: index + 1 })?);
            }
        }
    }
    Ok(entries)
}

/// Objects that hold settings of the same pool as what is around them.
const WITHIN: [&str; 4] = ["xcpng", "xcp", "vm_config", "vm_defaults"];

/// The object of pools by their hosts.
const POOLS: &str = "xcpng_configs";

fn walk(object: Map<String, Json>, above: &str, section: Option<&str>, entries: &mut Vec<Entry>) {
    for (name, value) in object {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let value = match value {
            Json::Object(inner) if WITHIN.contains(&name.as_str()) => {
                walk(inner, &key, section, entries);
                continue;
            }
            Json::Object(pools) if name == POOLS && section.is_none() => {
                for (host, value) in pools {
                    let key = format!("{key}.{host}");
                    match value {
                        Json::Object(pool) => walk(pool, &key, Some(&host), entries),
                        _ => entries.push(Entry {
                            key,
                            name: POOLS.to_owned(),
                            value: Value::Other("it is no object of settings"),
                            section: None,
                        }),
                    }
                }
                continue;
            }
            Json::String(text) if is_password(&name) => Value::Text(text),
            Json::String(text) => Value::Text(text.trim().to_owned()),
            Json::Number(number) => Value::Text(number.to_string()),
            Json::Bool(truth) => Value::Text(truth.to_string()),
            Json::Null => Value::Other("it is null"),
            Json::Array(_) | Json::Object(_) => Value::Other("it is no single value"),
        };
        entries.push(Entry { key, name, value, section: section.map(str::to_owned) });
    }
}

/// Whether spaces at its ends may be part of it.
fn is_password(name: &str) -> bool {
    meaning(name).0 == Meaning::Password
}

/// One line of a file as shells and `dotenv` read it.
fn variable(line: &str) -> Option<Entry> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_part) {
        return None;
    }
    let name = name.to_owned();
    Some(Entry {
        key: name.clone(),
        name,
        value: Value::Text(unquote(value.trim())?),
        section: None,
    })
}

/// A value without its quotes and the comment behind it; `None` where a quote has no end.
fn unquote(value: &str) -> Option<String> {
    let inner = |quote| value.strip_prefix(quote);
    let (text, rest) = if let Some(inner) = inner('\'') {
        let (text, rest) = inner.split_once('\'')?;
        (text.to_owned(), rest)
    } else if let Some(inner) = inner('"') {
        let mut text = String::new();
        let mut letters = inner.chars();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => match letters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    literal @ ('"' | '\\' | '$' | '`') => text.push(literal),
                    other => text.extend(['\\', other]),
                },
                other => text.push(other),
            }
        }
        (text, letters.as_str())
    } else {
        let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
        (value[..end].trim_end().to_owned(), "")
    };
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(text)
}
