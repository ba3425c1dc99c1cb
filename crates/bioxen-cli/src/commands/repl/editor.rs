//! The conversation on a terminal: editing, history, completion.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bioxen::{Value, VmSpec};
use reedline::{
    ColumnarMenu, Completer, CompletionResult, EditCommand, Emacs, FileBackedHistory, KeyCode,
    KeyModifiers, MenuBuilder as _, Prompt, PromptEditMode, PromptHistorySearch,
    PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu, Signal, Span, Suggestion,
    ValidationResult, Validator, default_emacs_keybindings,
};
use tokio::runtime::Runtime;

use super::completion::Target;
use super::conversation::{Conversation, Verdict};
use super::snippets;
use crate::directories::Directories;
use crate::failure::Failure;
use crate::report::Report;
use crate::runtime;

const COMPLETIONS: &str = "completions";
const PROMPT: &str = "> ";
const LONGEST_HISTORY: usize = 10_000;

/// Talks until Ctrl-D or `os.exit`.
pub(super) fn talk(spec: VmSpec) -> Result<ExitCode, Failure> {
    let runtime = runtime::new()?;
    let conversation = runtime.block_on(Conversation::start(spec))?;
    greet(&conversation);
    let talk = Shared(Arc::new(Mutex::new(Talk { runtime, conversation })));
    let mut editor = editor(&talk);
    let mut unfinished = String::new();
    loop {
        let line = match editor.read_line(&LuaPrompt { goes_on: !unfinished.is_empty() }) {
            Ok(Signal::Success(line)) => line,
            Ok(Signal::CtrlC) => {
                unfinished.clear();
                continue;
            }
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(Failure::Terminal(io::Error::other(error))),
        };
        unfinished.push_str(&line);
        match talk.evaluate(&unfinished)? {
            Verdict::Finished | Verdict::Failed => unfinished.clear(),
            Verdict::Incomplete => unfinished.push('\n'),
            Verdict::Left(code) => return Ok(code),
        }
    }
}

fn greet(conversation: &Conversation) {
    let info = conversation.vm().info();
    let interpreter = info.interpreter.map_or_else(|| "Lua".to_owned(), |lua| lua.version);
    let _ = writeln!(
        anstream::stderr(),
        "BioXen {}, {interpreter}. Tab completes, Ctrl-C stops, Ctrl-D leaves.",
        env!("CARGO_PKG_VERSION"),
    );
}

fn editor(talk: &Shared) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![
        ReedlineEvent::Menu(COMPLETIONS.into()),
        ReedlineEvent::MenuNext,
    ]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    let new_line = ReedlineEvent::Edit(vec![EditCommand::InsertNewline]);
    keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, new_line);
    let menu = ColumnarMenu::default().with_name(COMPLETIONS).with_marker(PROMPT);
    let colours = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    let editor = Reedline::create()
        .with_completer(Box::new(talk.clone()))
        .with_validator(Box::new(talk.clone()))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_ansi_colors(colours)
        .with_edit_mode(Box::new(Emacs::new(keys)));
    let Some(Directories { state, .. }) = Directories::from_environment() else { return editor };
    match history(&state) {
        Ok(history) => editor.with_history(Box::new(history)),
        Err(error) => {
            let message = format!("the history cannot be kept in `{}`", state.display());
            let causes = vec![error.to_string()];
            let hint = Some("name another directory in BIOXEN_HOME".to_owned());
            Report { causes, hint, ..Report::new(message) }.warning();
            editor
        }
    }
}

/// The history of earlier conversations, readable by its owner alone.
fn history(state: &Path) -> io::Result<FileBackedHistory> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let file = state.join("repl_history");
    OpenOptions::new().append(true).create(true).mode(0o600).open(&file)?;
    FileBackedHistory::with_file(LONGEST_HISTORY, file).map_err(io::Error::other)
}

/// The conversation with the runtime that it needs.
struct Talk {
    runtime: Runtime,
    conversation: Conversation,
}

/// The conversation, for the editor's parts, which ask it while a line is edited.
#[derive(Clone)]
struct Shared(Arc<Mutex<Talk>>);

impl Shared {
    fn evaluate(&self, input: &str) -> Result<Verdict, Failure> {
        self.with(|talk| talk.runtime.block_on(talk.conversation.evaluate(input)))
    }

    fn ask(&self, question: String) -> Option<Vec<Value>> {
        self.with(|talk| talk.runtime.block_on(talk.conversation.ask(question)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Talk) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Completer for Shared {
    fn complete(&mut self, line: &str, cursor: usize) -> CompletionResult {
        let target = line.get(..cursor).and_then(Target::before_cursor);
        let suggestions: Vec<_> = target
            .and_then(|target| {
                let answer = self.ask(target.snippet())?;
                let span = Span::new(cursor - target.replaced(), cursor);
                let suggest = |value| Suggestion { value, span, ..Suggestion::default() };
                Some(target.candidates(&answer).into_iter().map(suggest).collect())
            })
            .unwrap_or_default();
        CompletionResult::fresh(suggestions)
    }
}

impl Validator for Shared {
    fn validate(&self, input: &str) -> ValidationResult {
        match self.ask(snippets::is_incomplete(input)).as_deref() {
            Some([Value::Boolean(true)]) => ValidationResult::Incomplete,
            _ => ValidationResult::Complete,
        }
    }
}

/// The prompt of Lua's own interpreter.
struct LuaPrompt {
    goes_on: bool,
}

impl Prompt for LuaPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed(if self.goes_on { ">> " } else { PROMPT })
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed(">> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing for ",
        };
        Cow::Owned(format!("({failing}history: {}) ", search.term))
    }
}
