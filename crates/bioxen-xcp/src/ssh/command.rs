//! A program to run in a guest, and the one string in which SSH lets us say so.
//!
//! The guest's login shell reads that string. So every word is quoted, in a way that the shells of
//! the Bourne family, fish and csh read alike; nothing in a word means anything to them. (Passing the
//! words on standard input instead would need a program in the guest that reads them without taking
//! bytes that are meant for the program itself: a POSIX shell can do neither that nor zero bytes.)

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::SshError;

/// The longest string that Linux lets a shell be started with.
const LONGEST: usize = (128 << 10) - 1;

/// A program and its arguments, each passed on exactly as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    directory: Option<OsString>,
}

impl Command {
    /// A program, by path or by a name that is looked up in the guest.
    pub fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        Self { program, arguments: Vec::new(), variables: Vec::new(), directory: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Chooses the directory that it starts in; otherwise that is the user's home.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<OsString>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The same program, started by another that is given it as arguments.
    pub(super) fn within(&self, starter: &str, arguments: &[&str]) -> Self {
        let first = arguments.iter().map(OsString::from).chain([self.program.clone()]);
        let arguments = first.chain(self.arguments.iter().cloned()).collect();
        let (variables, directory) = (self.variables.clone(), self.directory.clone());
        Self { program: starter.into(), arguments, variables, directory }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        self.program.display().to_string()
    }

    /// The line by which a login shell starts it, for a program of SSH that passes one on.
    pub fn shell_line(&self) -> Result<OsString, Box<SshError>> {
        let refused = |reason| Box::new(SshError::Command { program: self.name(), reason });
        self.to_shell().map(OsString::from_vec).map_err(refused)
    }

    /// The string for the guest's shell, or why there can be none.
    pub(super) fn to_shell(&self) -> Result<Vec<u8>, String> {
        let program = self.program.as_bytes();
        let is_variable = |name: &OsStr| {
            let name = name.as_bytes();
            !name.is_empty() && !name.contains(&b'=')
        };
        if program.is_empty() {
            return Err("it has no name".into());
        }
        if let Some((name, _)) = self.variables.iter().find(|(name, _)| !is_variable(name)) {
            return Err(format!("`{}` cannot be a variable", name.display()));
        }
        if !self.variables.is_empty() && program.contains(&b'=') {
            return Err("a program with `=` in its name can be given no variables".into());
        }
        let mut text = Vec::with_capacity(128);
        if let Some(directory) = &self.directory {
            text.extend_from_slice(b"cd ");
            quote(&mut text, &as_path(directory))?;
            text.extend_from_slice(b" && ");
        }
        text.extend_from_slice(b"exec");
        let assignments = self
            .variables
            .iter()
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        let assignments: Vec<Vec<u8>> = assignments.collect();
        let env = (!assignments.is_empty()).then_some(&b"/usr/bin/env"[..]);
        let words = env
            .into_iter()
            .chain(assignments.iter().map(Vec::as_slice))
            .chain([program])
            .chain(self.arguments.iter().map(|argument| argument.as_bytes()));
        for word in words {
            text.push(b' ');
            quote(&mut text, word)?;
        }
        if text.len() > LONGEST {
            return Err(format!(
                "with its arguments it has {} bytes, and {LONGEST} can be passed",
                text.len()
            ));
        }
        Ok(text)
    }
}

/// The same directory in a form that `cd` takes for nothing else.
fn as_path(directory: &OsStr) -> Vec<u8> {
    let directory = directory.to_owned().into_vec();
    if directory.starts_with(b"/") { directory } else { [b"./", directory.as_slice()].concat() }
}

/// Appends one word.
///
/// Most bytes mean themselves within single quotes. Those that do not in one shell or another stand
/// outside of them, behind a backslash.
fn quote(text: &mut Vec<u8>, word: &[u8]) -> Result<(), String> {
    if word.contains(&0) {
        return Err("a word of it holds a zero byte".into());
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-,:@%+".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        text.extend_from_slice(word);
        return Ok(());
    }
    text.push(b'\'');
    for &byte in word {
        if matches!(byte, b'\'' | b'\\' | b'!') {
            text.extend_from_slice(&[b'\'', b'\\', byte, b'\'']);
        } else {
            text.push(byte);
        }
    }
    text.push(b'\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command as Process, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// What a shell of this machine makes of a command that prints its arguments.
    fn printed(shell: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
        let command = Command::new("/usr/bin/printf")
            .argument("%s\\0")
            .arguments(arguments.iter().map(|argument| OsString::from_vec(argument.clone())));
        let text = OsString::from_vec(command.to_shell().unwrap());
        let output = Process::new(shell).arg("-c").arg(text).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{shell}: {output:?}");
        output.stdout
    }

    fn joined(arguments: &[Vec<u8>]) -> Vec<u8> {
        let parts = arguments.iter().flat_map(|argument| [argument.as_slice(), b"\0"]);
        parts.collect::<Vec<_>>().concat()
    }

    fn shells() -> impl Iterator<Item = &'static str> {
        let known = ["/bin/sh", "/bin/bash", "/usr/bin/zsh", "/usr/bin/mksh", "/usr/bin/busybox"];
        let known = known.into_iter().filter(|shell| !shell.ends_with("busybox"));
        known.filter(|shell| std::path::Path::new(shell).exists())
    }

    /// A byte that a shell may take for something, more often than not.
    fn hostile_byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            3 => prop::sample::select(&b"'\"\\!$`;&|<>(){}[]*?~#=-^ \t\n\r%"[..]),
            1 => 1_u8..=255,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_shell_passes_every_word_on_as_it_is(
            arguments in prop::collection::vec(prop::collection::vec(hostile_byte(), 0..24), 1..12),
        ) {
            for shell in shells() {
                prop_assert_eq!(printed(shell, &arguments), joined(&arguments), "{}", shell);
            }
        }
    }

    #[test]
    fn words_that_are_known_to_hurt_do_not() {
        let arguments: Vec<Vec<u8>> = [
            "",
            "-n",
            "'",
            "''",
            "\\'",
            "$(touch /tmp/hurt)",
            "`id`",
            "a'; rm -rf /; '",
            "!!",
            "~",
            "*",
            "\n",
            "a\\",
            "\\\\",
            "--",
            "${IFS}",
            "é",
            "%s",
        ]
        .map(|word| word.as_bytes().to_vec())
        .into();
        for shell in shells() {
            assert_eq!(printed(shell, &arguments), joined(&arguments), "{shell}");
        }
    }

    #[test]
    fn directory_and_variables_arrive() {
        let command = Command::new("/bin/sh")
            .arguments(["-c", "printf '%s %s' \"$PWD\" \"$A\""])
            .variable("A", "it's $HOME")
            .directory("/usr/bin/../lib");
        let text = OsString::from_vec(command.to_shell().unwrap());
        let output = Process::new("/bin/sh").arg0("-sh").arg("-c").arg(text).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/usr/lib it's $HOME");
    }

    #[test]
    fn what_cannot_be_passed_is_refused_with_the_reason() {
        let refusal = |command: Command| command.to_shell().unwrap_err();
        assert!(refusal(Command::new("")).contains("no name"));
        assert!(refusal(Command::new("a").argument("b\0c")).contains("zero byte"));
        assert!(refusal(Command::new("a").argument("b".repeat(LONGEST))).contains("bytes"));
        assert!(refusal(Command::new("a").variable("b=c", "")).contains("`b=c`"));
        assert!(refusal(Command::new("a=b").variable("c", "d")).contains('='));
    }

    #[test]
    fn a_directory_is_never_taken_for_an_option_or_a_place_of_its_own() {
        for (directory, written) in [("-", "cd ./- "), ("-P", "cd ./-P "), ("/tmp", "cd /tmp ")] {
            let text = Command::new("a").directory(directory).to_shell().unwrap();
            assert!(text.starts_with(written.as_bytes()), "{}", String::from_utf8_lossy(&text));
        }
    }
}
