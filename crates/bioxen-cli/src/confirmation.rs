//! Asking a person before something that should not happen unasked.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// Like [`ask`], beside other work: for a command that has taken over Ctrl-C, which must still end it.
pub(crate) async fn ask_beside(question: String) -> Result<Option<bool>, Failure> {
    let asked = tokio::task::spawn_blocking(move || ask(&question)).await;
    asked.unwrap_or_else(|error| Err(Failure::Terminal(error.into())))
}

/// Asks a question that is answered by `y` or `n`, the latter unless it is the former; `None` where
/// there is no terminal to ask on.
pub(crate) fn ask(question: &str) -> Result<Option<bool>, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut terminal = io::stderr();
    let mut answer = String::new();
    terminal
        .write_all(format!("{question} [y/N] ").as_bytes())
        .and_then(|()| terminal.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(Failure::Terminal)?;
    Ok(Some(["y", "yes"].contains(&answer.trim().to_lowercase().as_str())))
}
