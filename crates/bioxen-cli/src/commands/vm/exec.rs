//! `bioxen vm exec`: a piece of Lua in a VM that is there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use bioxen::VmName;
use bytes::Bytes;

use crate::code::{self, Code};
use crate::failure::Failure;
use crate::fleet;
use crate::vm_options::LuaOptions;

/// Evaluate Lua in a VM and show what it returns
///
/// Each call has a Lua state of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Lua code, or `-` to read it from standard input
    code: OsString,
    /// Print the run's record and what it wrote as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lua: LuaOptions,
}

/// Evaluates it.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let reads_input = arguments.code != "-";
    let code = if reads_input {
        Bytes::from(arguments.code.into_vec())
    } else {
        code::from_standard_input()?
    };
    let code = Code::Input { name: "=eval", code };
    fleet::perform_in(arguments.name, &arguments.lua, code, reads_input, arguments.json)
}
