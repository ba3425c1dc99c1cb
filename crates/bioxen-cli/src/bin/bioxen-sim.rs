//! The simulated pool of `bioxen sim`: a program of its own, so that `bioxen` starts without it.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    return bioxen_cli::simulate();
    #[cfg(not(target_os = "linux"))]
    ExitCode::FAILURE
}
