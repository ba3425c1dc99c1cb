//! Interpreters that are programs of their own: what they say they are.

use std::path::Path;
use std::process::{Command, Stdio};

/// The version that an interpreter tells of itself, such as `Lua 5.1.5`; otherwise why it is none.
///
/// Runs `PROGRAM -v`, which all kinds of Lua answer with a line that starts with their name.
pub fn ask_version(path: &Path) -> Result<String, String> {
    let answer = Command::new(path)
        .arg("-v")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = [answer.stdout, answer.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    match words[..] {
        ["Lua" | "LuaJIT", _] => Ok(words.join(" ")),
        _ => {
            Err(format!("it does not answer `-v` as Lua does, but says `{}`", line.escape_debug()))
        }
    }
}
