//! Starting the built command, and looking at what became of it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command that has ended left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// A command that succeeded, printed this and complained about nothing.
    pub(crate) fn well(stdout: &str) -> Self {
        Self::with(0, stdout, "")
    }

    pub(crate) fn with(code: i32, stdout: &str, stderr: &str) -> Self {
        Self { code: Some(code), stdout: stdout.into(), stderr: stderr.into() }
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the command prints UTF-8 here")
}

/// The command, with nothing of the tester's own settings.
pub(crate) fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bioxen"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["BIOXEN_LOG", "BIOXEN_WORKER", "PYLUA_DEBUG", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("BIOXEN_XCPNG_")) {
            command.env_remove(variable);
        }
    }
    command
}

/// Runs the command to its end, without any standard input.
pub(crate) fn bioxen<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    command(arguments).output().expect("the command can be started").into()
}

/// Runs the command to its end; it reads `input`.
pub(crate) fn bioxen_reading(input: &str, arguments: &[&str]) -> Ended {
    feed(command(arguments), input.as_bytes()).into()
}

/// Runs a command to its end; it reads `input`.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("the command can be started");
    let mut stdin = child.stdin.take().expect("its standard input is a pipe");
    std::thread::scope(|scope| {
        // It may end without reading all.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("the command can be waited for")
    })
}

/// A directory of its own for a test, with files in it.
pub(crate) fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).expect("it can be written to");
    }
    directory
}

/// A path below a directory, as an argument.
pub(crate) fn below(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

/// The repository's examples.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Whether a program is there. In CI it has to be.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(there || std::env::var_os("CI").is_none(), "`{program}` must be installed in CI");
    if !there {
        eprintln!("skipped: `{program}` is not installed");
    }
    there
}
