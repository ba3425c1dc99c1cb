//! `bioxen eval`: an expression or a few statements, once, in a VM of its own.

use std::process::ExitCode;

use bioxen::VmName;

use crate::code::{self, Code};
use crate::comparison::On;
use crate::execution::Execution;
use crate::failure::Failure;
use crate::vm_options::VmOptions;

const AFTER_HELP: &str = "\
Exit codes are those of `bioxen run`.

Examples:
  bioxen eval '2^10'
  bioxen eval 'local t = {} for i = 1, 3 do t[i] = i * i end return t'
  bioxen eval --on 5.1,5.3,5.4,luajit '10 / 2'
  echo 'return _VERSION' | bioxen eval -";

/// Evaluate Lua code in an isolated VM and print what it returns
///
/// The code is an expression, or statements that may return values. Each value is printed on a line of
/// its own in Lua notation; a string by itself as it is. The command's standard input is the code's.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The code; `-` reads it from standard input
    #[arg(value_name = "CODE", allow_negative_numbers = true)]
    code: String,

    /// Print the run's record and what it wrote as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    on: On,

    #[command(flatten)]
    vm: VmOptions,
}

/// Evaluates the code and returns the exit code of its run.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let name = VmName::new("eval").expect("a constant and valid name");
    let (spec, results) = (arguments.vm.spec(name)?, arguments.vm.results());
    let reads_input = arguments.code != "-";
    let code = if reads_input {
        Code::Input { name: "eval", code: arguments.code.into() }
    } else {
        Code::Input { name: "stdin", code: code::from_standard_input()? }
    };
    let execution = Execution { spec, code, reads_input, json: arguments.json, results };
    arguments.on.perform(execution)
}
