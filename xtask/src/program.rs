//! Programs that the steps call, shown as a person would type them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, iter};

use anyhow::{Context as _, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Whether this is a CI run, in which nothing that the tests need may be missing.
pub(crate) fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// A program that will run in the workspace's folder.
pub(crate) fn program(name: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(name.as_ref());
    command.args(arguments).current_dir(root());
    command
}

/// A cargo command.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    program("cargo", arguments)
}

/// Shows the command, runs it and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if status.success() { Ok(()) } else { bail!("`{line}` ended with {status}") }
}

/// What the command prints on stdout; fails unless it succeeds.
pub(crate) fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let line = shown(command);
    let output = command.output().with_context(|| format!("could not start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// Whether the command can be started and succeeds; nobody sees what it prints.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as typed in a shell in the workspace's folder.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        value
            .map(|value| format!("{}={}", name.display(), quoted(&short(&value.to_string_lossy()))))
    });
    let words = iter::once(command.get_program()).chain(command.get_args());
    variables
        .chain(words.map(|word| quoted(&short(&word.to_string_lossy()))))
        .collect::<Vec<_>>()
        .join(" ")
}

fn short(word: &str) -> String {
    let root = format!("{}/", root().display());
    word.replace(&root, "")
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains([' ', '"', '$', '&', ';', '(', ')', '*', '?']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = cargo(&["doc", "--no-deps"]);
        command.env("RUSTDOCFLAGS", "-D warnings").env_remove("CARGO");
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn paths_are_shown_from_the_workspaces_folder() {
        let command = program(root().join("target/tool"), &["-x"]);
        assert_eq!(shown(&command), "target/tool -x");
    }

    #[test]
    fn a_failing_command_is_named_in_the_error() {
        let error = run(&mut program("false", &[])).unwrap_err().to_string();
        assert!(error.starts_with("`false` ended with exit status: 1"), "{error}");
        assert!(!works(&mut program("no-such-program", &[])));
    }
}
