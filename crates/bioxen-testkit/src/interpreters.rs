//! The interpreters that tests try besides the built-in one.

use std::env;

use bioxen::FoundInterpreter;

/// The interpreters that `BioXen` promises to run, by the names of their programs.
pub const INTERPRETERS: [&str; 5] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];

/// Says that a part of a test is left out, and why.
pub fn skip(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
}

/// Those of [`INTERPRETERS`] that this machine has.
///
/// # Panics
///
/// When one is missing and `CI` is `true`: there, all of them are to be tried.
pub fn installed_interpreters() -> Vec<FoundInterpreter> {
    INTERPRETERS.into_iter().filter_map(interpreter).collect()
}

/// One interpreter, if this machine has it; says so if not.
///
/// # Panics
///
/// As [`installed_interpreters`].
pub fn interpreter(name: &str) -> Option<FoundInterpreter> {
    let found = bioxen::interpreters().into_iter().find(|found| found.name == name);
    if found.is_none() {
        let must_be_there = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must_be_there, "`{name}` is not installed, and CI tries all interpreters");
        skip(name, "it is not installed");
    }
    found
}
