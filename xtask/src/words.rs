//! Finds the word that this project does not use: two protocols of its field share it.
//!
//! `docs/glossary.md` says what to write instead. It may name the word, and so may what holds the
//! hypervisor's own names as they go over the wire.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::program::{output_of, program, root};

const WORD: &str = concat!("x", "api");
const EXPLANATION: &str = "docs/glossary.md";

/// Names and defaults as a server sends them, which are not ours to choose.
const FACTS: [&str; 2] = ["crates/xenapi-model/datamodel.json", "crates/xenapi/src/generated/"];

/// Looks through every file that git tracks or would track.
pub(crate) fn check() -> Result<()> {
    let mut findings = Vec::new();
    for path in files()? {
        if path == EXPLANATION || FACTS.iter().any(|facts| path.starts_with(facts)) {
            continue;
        }
        if holds_word(path.as_bytes()) {
            findings.push(format!("{path}: in its name"));
        }
        for line in lines_with_word(&root().join(&path))? {
            findings.push(format!("{path}:{line}"));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("the bare word `{WORD}` stands in {} places; {EXPLANATION} says why not", findings.len())
}

fn files() -> Result<Vec<String>> {
    let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = output_of(&mut program("git", &listed))?;
    let output = String::from_utf8(output).context("a file name is not UTF-8")?;
    Ok(output.split_terminator('\0').map(str::to_owned).collect())
}

fn lines_with_word(path: &Path) -> Result<Vec<usize>> {
    // Git also lists files that were deleted but not yet committed, and links to folders.
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(path).with_context(|| format!("could not read `{}`", path.display()))?;
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    Ok(lines.filter(|(_, line)| holds_word(line)).map(|(index, _)| index + 1).collect())
}

fn holds_word(text: &[u8]) -> bool {
    text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .any(|word| word.eq_ignore_ascii_case(WORD.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_in_any_case_and_between_any_marks() {
        for text in ["the @ says", "(@)", "@", "src/@/lib.rs", "a-@-b", "@'s"] {
            let text = text.replace('@', WORD);
            assert!(holds_word(text.as_bytes()), "{text}");
            assert!(holds_word(text.to_uppercase().as_bytes()), "{text}");
        }
    }

    #[test]
    fn longer_identifiers_are_left_alone() {
        for text in ["xen@", "@_client", "@s", "XenAPI", "e@2"] {
            let text = text.replace('@', WORD);
            assert!(!holds_word(text.as_bytes()), "{text}");
        }
    }
}
