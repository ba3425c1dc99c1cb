//! `bioxen completions`: a shell's completion script.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

const AFTER_HELP: &str = "\
Examples:
  bioxen completions bash > ~/.local/share/bash-completion/completions/bioxen
  bioxen completions zsh > \"${fpath[1]}/_bioxen\"
  bioxen completions fish > ~/.config/fish/completions/bioxen.fish";

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::command(), "bioxen", &mut script);
    output::print(&script)?;
    Ok(ExitCode::SUCCESS)
}
