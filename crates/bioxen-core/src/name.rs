//! Names of VMs, and the patterns that pick several of them.

use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

const LONGEST: usize = 63;

/// A VM's name: 1 to 63 lowercase letters, digits, hyphens and underscores, starting with a letter.
///
/// Safe as a file name, a host name's first part (without underscores) and a word in a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// Why a text is not a VM's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a VM name: {reason}; use 1 to 63 of a-z, 0-9, `-` and `_`, starting with a letter"
)]
pub struct InvalidName {
    given: String,
    reason: &'static str,
}

impl VmName {
    /// Checks `name` and wraps it.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let given = name.into();
        let reason = match given.as_bytes() {
            [] => Some("it is empty"),
            bytes if bytes.len() > LONGEST => Some("it is longer than 63 characters"),
            [first, ..] if !first.is_ascii_lowercase() => {
                Some("it does not start with a lowercase letter")
            }
            bytes if !bytes.iter().all(|byte| is_name_byte(*byte)) => {
                Some("it holds a character that is not allowed")
            }
            _ => None,
        };
        match reason {
            Some(reason) => Err(InvalidName { given: given.escape_debug().to_string(), reason }),
            None => Ok(Self(given)),
        }
    }

    /// The name of a group's member: `name_000`, `name_001`, …
    pub fn member(group: &VmName, index: usize) -> Result<Self, InvalidName> {
        Self::new(format!("{group}_{index:03}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VmName {
    type Err = InvalidName;
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl TryFrom<String> for VmName {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl TryFrom<&str> for VmName {
    type Error = InvalidName;
    fn try_from(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl From<std::convert::Infallible> for InvalidName {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

/// A shell-style pattern over VM names: `*`, `?`, `[a-z]` and `{a,b}`, matched against whole names.
#[derive(Clone, Debug)]
pub struct NamePattern(GlobMatcher);

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a pattern over VM names: {reason}")]
pub struct InvalidPattern {
    given: String,
    reason: String,
}

impl NamePattern {
    /// Whether `name` as a whole matches.
    pub fn matches(&self, name: &VmName) -> bool {
        self.0.is_match(name.as_str())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }
}

impl FromStr for NamePattern {
    type Err = InvalidPattern;
    fn from_str(pattern: &str) -> Result<Self, InvalidPattern> {
        Glob::new(pattern).map(|glob| Self(glob.compile_matcher())).map_err(|error| {
            InvalidPattern { given: pattern.to_owned(), reason: error.kind().to_string() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lowercase_letters_digits_hyphens_and_underscores() {
        for good in ["a", "gc-content", "worker_000", "x9"] {
            assert!(VmName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "9x", "-a", "A", "a b", "a/b", "../etc", "a\0", "é", &"a".repeat(64)] {
            assert!(VmName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_says_why_and_what_is_allowed() {
        let text = VmName::new("Big One").unwrap_err().to_string();
        assert!(text.contains("`Big One`") && text.contains("lowercase letter"), "{text}");
    }

    #[test]
    fn members_of_a_group_are_numbered_from_000() {
        let group = VmName::new("gc").unwrap();
        assert_eq!(VmName::member(&group, 7).unwrap().as_str(), "gc_007");
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let pattern: NamePattern = "gc_*".parse().unwrap();
        assert!(pattern.matches(&VmName::new("gc_001").unwrap()));
        assert!(!pattern.matches(&VmName::new("xgc_001").unwrap()));
        assert!("[".parse::<NamePattern>().is_err());
    }
}
