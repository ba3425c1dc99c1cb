//! The `bioxen` command. What it does is in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A worker is this same program, started to become one: nothing may run before this.
    bioxen::init();
    bioxen_cli::run()
}
