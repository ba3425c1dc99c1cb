//! `bioxen man`: the manual, one page for each command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap_mangen::Man;

use crate::failure::Failure;
use crate::output;

/// Write the manual pages into a directory
///
/// One page for each command: bioxen.1, bioxen-run.1, … The directory is made if it is not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write them, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

/// Writes the pages and prints their paths.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let directory = &arguments.directory;
    let unwritable = |source| Failure::WritePages { directory: directory.clone(), source };
    let pages = write_pages(directory).map_err(unwritable)?;
    let paths = pages.iter().map(|page| page.display().to_string());
    output::print((paths.collect::<Vec<_>>().join("\n") + "\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(directory)?;
    let mut command = crate::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    with_subcommands(&command, &mut |command| {
        pages.push(Man::new(command.clone()).generate_to(directory));
    });
    pages.into_iter().collect()
}

/// Shows a command, those below it, and those below them to `visit`.
fn with_subcommands(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
    visit(command);
    for subcommand in command.get_subcommands() {
        with_subcommands(subcommand, visit);
    }
}
