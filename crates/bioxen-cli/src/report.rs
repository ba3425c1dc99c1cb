//! Messages for a person, on standard error: what happened, why, and what to do next.
//!
//! ```text
//! error: could not create the vm
//!   caused by: interpreter `lua5.9` cannot be used: there is no such program
//!   hint: `bioxen doctor` lists the interpreters of this machine
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();
const CAUSE: Style = Style::new().bold();

/// One message, ready to be printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What happened, and to which object.
    pub(crate) message: String,
    /// Why, each the cause of the one before.
    pub(crate) causes: Vec<String>,
    /// Lines that belong to it, such as a stack traceback.
    pub(crate) detail: Option<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Report {
    /// A message alone.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// An error with all that caused it.
    pub(crate) fn of(error: &dyn Error, hint: Option<String>) -> Self {
        let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
        Self {
            message: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            detail: None,
            hint,
        }
    }

    /// Prints it as an error.
    pub(crate) fn error(&self) {
        self.print("error", ERROR);
    }

    /// Prints it as a warning: the command goes on.
    pub(crate) fn warning(&self) {
        self.print("warning", WARNING);
    }

    fn print(&self, word: &str, style: Style) {
        // When standard error is gone there is nobody left to tell.
        let _ = anstream::stderr().lock().write_all(self.render(word, style).as_bytes());
    }

    fn render(&self, word: &str, style: Style) -> String {
        let mut text = format!("{style}{word}:{style:#} {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  {CAUSE}caused by:{CAUSE:#} {cause}");
        }
        for line in self.detail.iter().flat_map(|detail| detail.lines()) {
            let _ = writeln!(text, "  {}", line.replace('\t', "  "));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {HINT}hint:{HINT:#} {hint}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_what_happened_then_why_then_what_to_do() {
        let report = Report {
            message: "it broke".into(),
            causes: vec!["the lid was open".into(), "the wind".into()],
            detail: Some("stack traceback:\n\tx.lua:1".into()),
            hint: Some("close it".into()),
        };
        assert_eq!(
            report.render("error", Style::new()),
            "error: it broke\n  \u{1b}[1mcaused by:\u{1b}[0m the lid was open\n  \
             \u{1b}[1mcaused by:\u{1b}[0m the wind\n  stack traceback:\n    x.lua:1\n  \
             \u{1b}[36mhint:\u{1b}[0m close it\n"
        );
    }
}
