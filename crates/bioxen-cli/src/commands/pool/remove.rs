//! `bioxen pool remove`: forgets a pool's name and settings. The pool itself is not touched.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::{configuration, confirmation, output};

/// Forget a pool; the pool itself is not touched
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pool's name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Removes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut configuration = configuration::read()?;
    let pool = configuration.pool(&arguments.name);
    let name = pool.map_err(|error| Failure::Configuration(error.into()))?.name.clone();
    if !arguments.yes && confirmation::ask(&format!("Forget pool `{name}`?"))? != Some(true) {
        return Err(Failure::NotConfirmed { what: format!("pool `{name}` was not removed") });
    }
    configuration.remove_pool(name.as_str()).map_err(Failure::Configuration)?;
    output::print(format!("removed pool `{name}`\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
