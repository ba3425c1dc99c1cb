//! Logs on standard error, only when someone asked for them.

use std::env;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging if `-v`, `BIOXEN_LOG` or `PYLUA_DEBUG=true` asks for it.
pub(crate) fn start(verbose: u8) {
    let Some(filter) = filter(verbose) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .init();
}

/// What to log: the flag decides before the environment.
fn filter(verbose: u8) -> Option<String> {
    let asked_by_old_name = || env::var_os("PYLUA_DEBUG").is_some_and(|value| value == "true");
    match verbose {
        0 => env::var("BIOXEN_LOG")
            .ok()
            .filter(|filter| !filter.is_empty())
            .or_else(|| asked_by_old_name().then(|| level(1).to_owned())),
        count => Some(level(count).to_owned()),
    }
}

fn level(verbose: u8) -> &'static str {
    match verbose {
        0 | 1 => "info",
        2 => "debug",
        _ => "trace",
    }
}
