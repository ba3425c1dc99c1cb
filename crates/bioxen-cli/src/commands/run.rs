//! `bioxen run`: a script, once, in a VM of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use bioxen::{Script, VmName};
use clap::ValueHint;

use crate::code::{self, Code};
use crate::comparison::On;
use crate::execution::Execution;
use crate::failure::Failure;
use crate::vm_options::VmOptions;

const AFTER_HELP: &str = "\
Exit codes:
  the script's own, such as 3 after os.exit(3)
    1  a Lua error, or more output than its limit
    2  a wrong command line, or a script that cannot be read
  124  more time than its limit
  125  no VM could be made, or it was lost
  130  cancelled with Ctrl-C
  137  more memory than its limit, or killed; 128 + signal when the interpreter crashed

Examples:
  bioxen run hello.lua
  bioxen run --allow-read genome.fasta gc.lua genome.fasta
  zcat reads.fq.gz | bioxen run --timeout 10m count.lua
  bioxen run --on 5.1,5.4,luajit --allow-read genome.fasta gc.lua genome.fasta";

/// Run a Lua script in an isolated VM
///
/// The script's output, errors and exit code become the command's own; its standard input is the
/// command's. It sees its arguments as `...` and in the table `arg`, as with other Lua interpreters.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, override_usage = "bioxen run [OPTIONS] SCRIPT [ARGS]...")]
pub(crate) struct Arguments {
    /// The script, or `-` to read it from standard input, and its arguments
    ///
    /// Options for `bioxen` itself go before the script; whatever follows it is the script's.
    #[arg(
        value_names = ["SCRIPT", "ARGS"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        value_hint = ValueHint::FilePath
    )]
    script: Vec<OsString>,

    /// Environment variable that the script sees, besides the granted ones; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    environment: Vec<(String, String)>,

    /// Print the run's record and what it wrote as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    on: On,

    #[command(flatten)]
    vm: VmOptions,
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not NAME=VALUE"),
    }
}

/// Runs the script and returns its exit code.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let name = VmName::new("run").expect("a constant and valid name");
    let (spec, results) = (arguments.vm.spec(name)?, arguments.vm.results());
    let mut words = arguments.script.into_iter();
    let script_path = words.next().expect("clap asked for one word at least");
    let reads_input = script_path != "-";
    let script = if reads_input {
        Script::file(PathBuf::from(script_path))
    } else {
        Script::code("stdin", code::from_standard_input()?)
    };
    let script = script.args(words.map(OsString::into_encoded_bytes));
    let script =
        arguments.environment.into_iter().fold(script, |s, (name, value)| s.env(name, value));
    let code = Code::Script(script);
    let execution = Execution { spec, code, reads_input, json: arguments.json, results };
    arguments.on.perform(execution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_split_at_its_first_equals_sign() {
        assert_eq!(assignment("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(assignment("A="), Ok(("A".into(), String::new())));
        assert!(assignment("A").is_err());
        assert!(assignment("=b").is_err());
    }
}
