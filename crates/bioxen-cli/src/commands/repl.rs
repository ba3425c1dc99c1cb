//! `bioxen repl`: a conversation with one VM, which keeps its Lua state between lines.

mod completion;
mod conversation;
mod editor;
mod snippets;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use bioxen::VmName;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::failure::Failure;
use crate::runtime;
use crate::vm_options::VmOptions;
use conversation::{Conversation, Verdict};

const AFTER_HELP: &str = "\
Keys: Tab completes globals and the fields of tables, Ctrl-R searches the history, Ctrl-C stops an
evaluation (the VM and its state stay), Ctrl-D leaves.

When standard input is not a terminal, its lines are evaluated one after another without a prompt; the
exit code is then 0 if all of them finished, else 1.";

/// Talk to a VM line by line
///
/// What one line sets, the next one sees. Values are shown in Lua notation; input that is not complete
/// goes on on the next line. Limits hold for each evaluation, memory for the whole VM.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    vm: VmOptions,
}

/// Talks until the input ends.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let name = VmName::new("repl").expect("a constant and valid name");
    let spec = arguments.vm.spec(name)?;
    if io::stdin().is_terminal() {
        editor::talk(spec)
    } else {
        runtime::block_on(async { follow(Conversation::start(spec).await?).await })
    }
}

/// Evaluates the lines of standard input.
async fn follow(mut conversation: Conversation) -> Result<ExitCode, Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut input = String::new();
    let mut all_well = true;
    while let Some(line) =
        conversation.or_stop(async { lines.next_line().await.map_err(Failure::ReadCode) }).await?
    {
        input.push_str(&line);
        match conversation.evaluate(&input).await? {
            Verdict::Incomplete => {
                input.push('\n');
                continue;
            }
            Verdict::Finished => {}
            Verdict::Failed => all_well = false,
            Verdict::Left(code) => return Ok(code),
        }
        input.clear();
    }
    if !input.is_empty() {
        Failure::Incomplete.tell();
        all_well = false;
    }
    conversation.end().await;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
