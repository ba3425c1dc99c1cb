//! `bioxen vm run`: a script in a VM that is there.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use bioxen::{Script, VmName};
use clap::ValueHint;

use crate::code::{self, Code};
use crate::failure::Failure;
use crate::fleet;
use crate::vm_options::LuaOptions;

/// Run a Lua script of this machine in a VM
///
/// The script's output, errors and exit code become the command's own. Paths in it are the guest's:
/// `bioxen vm copy` brings files there.
#[derive(Debug, clap::Args)]
#[command(override_usage = "bioxen vm run [OPTIONS] NAME SCRIPT [ARGS]...")]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// The script, or `-` to read it from standard input, and its arguments
    #[arg(
        value_names = ["SCRIPT", "ARGS"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        value_hint = ValueHint::FilePath
    )]
    script: Vec<OsString>,
    /// Print the run's record and what it wrote as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lua: LuaOptions,
}

/// Runs it.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut words = arguments.script.into_iter();
    let path = words.next().expect("clap asked for one word at least");
    let reads_input = path != "-";
    let script = if reads_input {
        Script::file(PathBuf::from(path))
    } else {
        Script::code("stdin", code::from_standard_input()?)
    };
    let script = script.args(words.map(OsString::into_encoded_bytes));
    let code = Code::Script(script);
    fleet::perform_in(arguments.name, &arguments.lua, code, reads_input, arguments.json)
}
