//! References to secrets that are kept elsewhere: `env:NAME`, `file:PATH`, `cmd:PROGRAM ARGUMENTS`.
//!
//! Configuration holds references only, so that it can be shown, copied and kept under version
//! control.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xenapi::Secret;

/// How long a program may take to print a secret: a person may have to unlock a key ring.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest secret that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretReference {
    /// In an environment variable of this process.
    Variable(String),
    /// In a file, whose last line break is not part of it.
    File(PathBuf),
    /// What a program prints, without its last line break. The words are the program and its
    /// arguments; no shell reads them.
    Command(Vec<String>),
}

/// Why a text refers to no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is referred to by env:NAME, file:PATH or cmd:PROGRAM; {reason}")]
pub struct InvalidReference {
    // The text itself is not shown: whoever wrote it may have put the secret there.
    reason: &'static str,
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The variable is not there.
    #[error("environment variable `{name}` is not set")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("secret file `{}` cannot be read", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("secret file `{}` cannot be written", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds another secret.
    #[error("secret file `{}` is there already, with another secret", path.display())]
    Taken {
        /// Its path.
        path: PathBuf,
    },
    /// The program cannot be started.
    #[error("`{program}` cannot be started")]
    Command {
        /// Its name.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// The program failed.
    #[error("`{program}`, which should print a secret, ended with {status}")]
    CommandFailed {
        /// Its name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The program did not end.
    #[error("`{program}` printed no secret within {} s", PATIENCE.as_secs())]
    CommandTimeout {
        /// Its name.
        program: String,
    },
    /// What was found is no secret.
    #[error("what `{reference}` refers to is no secret: {reason}")]
    Unusable {
        /// The reference.
        reference: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl SecretError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoVariable { name } => format!("set it: `export {name}=…`"),
            Self::File { path, .. } => format!("check that `{}` is yours to read", path.display()),
            Self::Write { path, .. } => {
                format!("check that `{}` is in a directory of yours", path.display())
            }
            Self::Taken { path } => {
                format!("remove `{}` if nothing refers to it", path.display())
            }
            Self::Command { program, .. }
            | Self::CommandFailed { program, .. }
            | Self::CommandTimeout { program } => format!("run `{program}` by hand to see why"),
            Self::Unusable { .. } => "it must be text, one line, and not empty".into(),
        }
    }
}

impl SecretReference {
    /// Keeps a secret in a new file that only its owner can read, and refers to it. The directory is made
    /// if it is not there. A file that holds this secret already will do; another is left as it is.
    pub fn keep_in(path: &Path, secret: &Secret) -> Result<Self, SecretError> {
        let refuse = |source| SecretError::Write { path: path.to_owned(), source };
        let directory = path.parent().unwrap_or(Path::new("."));
        crate::configuration::create_private(directory).map_err(refuse)?;
        // Only its owner may read it: that is how such files are made.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(refuse)?;
        writeln!(file, "{}", secret.expose()).map_err(refuse)?;
        file.as_file().sync_all().map_err(refuse)?;
        match file.persist_noclobber(path) {
            Ok(_) => File::open(directory).and_then(|it| it.sync_all()).map_err(refuse)?,
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let there = fs::read_to_string(path).map_err(refuse)?;
                if there.strip_suffix('\n').unwrap_or(&there) != secret.expose() {
                    return Err(SecretError::Taken { path: path.to_owned() });
                }
            }
            Err(error) => return Err(refuse(error.error)),
        }
        Ok(Self::File(path.to_owned()))
    }

    /// Fetches the secret.
    pub async fn resolve(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            Self::Variable(name) => std::env::var_os(name)
                .ok_or_else(|| SecretError::NoVariable { name: name.clone() })?
                .into_encoded_bytes(),
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| SecretError::File { path: path.clone(), source })?,
            Self::Command(words) => run(words).await?,
        };
        self.parse(bytes).map_err(|reason| {
            let reference = self.to_string();
            SecretError::Unusable { reference, reason }
        })
    }

    fn parse(&self, bytes: Vec<u8>) -> Result<Secret, &'static str> {
        if bytes.len() > LONGEST {
            return Err("it is too long");
        }
        let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        if !matches!(self, Self::Variable(_)) {
            let kept = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
            text.truncate(kept.map_or(text.len(), str::len));
        }
        match text.as_str() {
            "" => Err("it is empty"),
            several if several.contains('\n') => Err("it has several lines"),
            _ => Ok(Secret::from(text)),
        }
    }
}

async fn run(words: &[String]) -> Result<Vec<u8>, SecretError> {
    let (program, arguments) = words.split_first().expect("a reference has a program");
    let program = || program.clone();
    let child = tokio::process::Command::new(program())
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| SecretError::Command { program: program(), source })?;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .map_err(|_| SecretError::CommandTimeout { program: program() })?
        .map_err(|source| SecretError::Command { program: program(), source })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(SecretError::CommandFailed { program: program(), status: output.status })
    }
}

impl FromStr for SecretReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |reason| Err(InvalidReference { reason });
        let Some((kind, place)) = text.split_once(':') else {
            return invalid("this has none of the three beginnings");
        };
        match kind {
            "env" if is_variable(place) => Ok(Self::Variable(place.to_owned())),
            "env" => invalid("`env:` wants the name of an environment variable"),
            "file" if !place.is_empty() => Ok(Self::File(place.into())),
            "file" => invalid("`file:` wants a path"),
            "cmd" => match shlex::split(place) {
                Some(words) if !words.is_empty() => Ok(Self::Command(words)),
                Some(_) => invalid("`cmd:` wants a program"),
                None => invalid("the quotes after `cmd:` do not match"),
            },
            _ => invalid("this has none of the three beginnings"),
        }
    }
}

fn is_variable(name: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.starts_with(|first: char| is_part(first) && !first.is_ascii_digit())
        && name.chars().all(is_part)
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(words) => {
                let words = words.iter().map(String::as_str);
                let joined = shlex::try_join(words).expect("parsed words hold no zero byte");
                write!(f, "cmd:{joined}")
            }
        }
    }
}

impl TryFrom<String> for SecretReference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<SecretReference> for String {
    fn from(reference: SecretReference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_written_as_it_was_read() {
        for text in ["env:LAB_PASSWORD", "file:/run/secrets/lab", "cmd:pass show 'xcp lab'"] {
            let reference: SecretReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_refers_to_nothing_is_refused_and_not_repeated() {
        for text in
            ["hunter2", "env:", "env:1A", "env:A-B", "file:", "cmd:", "cmd:'a", "vault:x", ""]
        {
            let error = text.parse::<SecretReference>().unwrap_err().to_string();
            assert!(error.contains("env:NAME"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_s_last_line_break_is_no_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, secret) in [("open sesame\n", "open sesame"), ("a\r\n", "a"), (" b ", " b ")] {
            std::fs::write(file.path(), text).unwrap();
            let reference = SecretReference::File(file.path().to_owned());
            assert_eq!(reference.resolve().await.unwrap().expose(), secret);
        }
        for text in ["", "\n", "two\nlines\n"] {
            std::fs::write(file.path(), text).unwrap();
            let reference = SecretReference::File(file.path().to_owned());
            assert!(matches!(reference.resolve().await, Err(SecretError::Unusable { .. })));
        }
    }

    #[tokio::test]
    async fn a_secret_that_is_kept_is_read_back_and_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets/lab");
        let secret = Secret::from(" open sesame ");
        let reference = SecretReference::keep_in(&path, &secret).unwrap();
        assert_eq!(reference.resolve().await.unwrap().expose(), secret.expose());
        SecretReference::keep_in(&path, &secret).unwrap();
        let error = SecretReference::keep_in(&path, &Secret::from("other")).unwrap_err();
        assert!(matches!(error, SecretError::Taken { .. }), "{error}");
        assert_eq!(reference.resolve().await.unwrap().expose(), secret.expose());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_program_s_arguments_are_not_read_by_a_shell() {
        let reference: SecretReference = "cmd:printf %s '$HOME;x'".parse().unwrap();
        assert_eq!(reference.resolve().await.unwrap().expose(), "$HOME;x");
        let failing: SecretReference = "cmd:false".parse().unwrap();
        assert!(matches!(failing.resolve().await, Err(SecretError::CommandFailed { .. })));
        let missing: SecretReference = "cmd:/no/such/program".parse().unwrap();
        assert!(matches!(missing.resolve().await, Err(SecretError::Command { .. })));
    }
}
