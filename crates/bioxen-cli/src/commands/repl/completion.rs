//! Completion of names in the session, and of Lua's own words.

use bioxen::Value;

use super::snippets;

const WORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// The dotted name that ends where the cursor is: `string.f` is the path `string` and the prefix `f`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    path: Vec<&'a str>,
    prefix: &'a str,
}

impl<'a> Target<'a> {
    /// Finds it in the text before the cursor. `None` where no name of a global can be meant.
    pub(super) fn before_cursor(text: &'a str) -> Option<Self> {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
        let start = text.trim_end_matches(part_of_name).len();
        let mut path: Vec<_> = text[start..].split(['.', ':']).collect();
        let prefix = path.pop()?;
        // A number, the end of `x..y`, or a field of what a call returned.
        let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let whole = path.iter().all(|name| is_name(name)) && (prefix.is_empty() || is_name(prefix));
        whole.then_some(Self { path, prefix })
    }

    /// How many bytes before the cursor the completed name replaces.
    pub(super) fn replaced(&self) -> usize {
        self.prefix.len()
    }

    /// The question to the session.
    pub(super) fn snippet(&self) -> String {
        snippets::names_after(&self.path, self.prefix)
    }

    /// What could stand there, by the session's answer.
    pub(super) fn candidates(&self, answer: &[Value]) -> Vec<String> {
        let names = match answer {
            [Value::Array(names)] => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let words = if self.path.is_empty() && !self.prefix.is_empty() { &WORDS[..] } else { &[] };
        let words = words.iter().copied().filter(|word| word.starts_with(self.prefix));
        let mut candidates: Vec<_> = names.into_iter().chain(words).map(str::to_owned).collect();
        candidates.sort();
        candidates.dedup();
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dotted_name_before_the_cursor_is_split_at_its_last_dot() {
        let found = Target::before_cursor("print(string.fo").unwrap();
        assert_eq!(found, Target { path: vec!["string"], prefix: "fo" });
        let found = Target::before_cursor("x = io.stdout:").unwrap();
        assert_eq!(found, Target { path: vec!["io", "stdout"], prefix: "" });
        let found = Target::before_cursor("pri").unwrap();
        assert_eq!(found, Target { path: vec![], prefix: "pri" });
    }

    #[test]
    fn what_is_no_name_is_not_completed() {
        for text in ["1.5", "f().x", "a..b", "t[1].x", "3"] {
            assert_eq!(Target::before_cursor(text), None, "{text}");
        }
    }

    #[test]
    fn words_of_the_language_stand_among_the_globals() {
        let target = Target::before_cursor("re").unwrap();
        let answer = Value::Array(vec![Value::String(b"rest".to_vec())]);
        assert_eq!(target.candidates(&[answer]), ["repeat", "rest", "return"]);
    }
}
