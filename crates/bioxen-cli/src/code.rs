//! What the command line asks to run, as the library takes it.

use std::io::{self, Read as _};

use bioxen::{Evaluation, Script, Vm};
use bytes::Bytes;

use crate::failure::Failure;

/// Code to run, ready to be run more than once.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    /// A whole program with its arguments.
    Script(Script),
    /// An expression or statements; its values are the result.
    Input {
        /// What error messages call it.
        name: &'static str,
        /// Lua source.
        code: Bytes,
    },
}

impl Code {
    /// The evaluation of this code in a VM, not yet started.
    pub(crate) fn in_vm(&self, vm: &Vm) -> Evaluation {
        match self {
            Self::Script(script) => vm.run(script.clone()),
            Self::Input { name, code } => vm.eval(code.clone()).name(*name),
        }
    }

    /// Whether the values that it returns are part of what a person wants to see.
    pub(crate) fn shows_values(&self) -> bool {
        matches!(self, Self::Input { .. })
    }
}

/// All of standard input, as code.
pub(crate) fn from_standard_input() -> Result<Bytes, Failure> {
    let mut code = Vec::new();
    io::stdin().lock().read_to_end(&mut code).map_err(Failure::ReadCode)?;
    Ok(code.into())
}
