//! Lua that the conversation runs for itself: to complete names, and to see whether input is whole.
//!
//! It reads tables raw and calls nothing of the user's, so that pressing a key has no effect on the
//! session. It keeps to what every Lua from 5.1 on understands.

/// Names that could stand after a path of names, sorted; see `complete.lua`.
pub(super) fn names_after(path: &[&str], prefix: &str) -> String {
    let path = path.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    format!("return (function(path, prefix)\n{COMPLETE}\nend)({{{path}}}, {})", quoted(prefix))
}

/// Whether more lines could make `input` whole.
pub(super) fn is_incomplete(input: &str) -> String {
    format!("return (function(input)\n{INCOMPLETE}\nend)({})", quoted(input))
}

const COMPLETE: &str = include_str!("complete.lua");
const INCOMPLETE: &str = include_str!("incomplete.lua");

/// A Lua string literal for any text.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b' ';
    let written = text.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("\\{byte:03}"),
    });
    format!("\"{}\"", written.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_literal_without_a_way_out() {
        assert_eq!(quoted("a\"]]\\\n1é"), "\"a\\034\\093\\093\\092\\0101\\195\\169\"");
    }
}
