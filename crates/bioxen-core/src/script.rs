//! A piece of Lua to run once, with all it is given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

/// Lua code with its arguments, standard input, working directory and environment.
///
/// A script is run as a chunk: it sees its arguments as `...` and in the table `arg`.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where the code is.
    pub source: Source,
    /// `arg[1]`, `arg[2]`, …: any bytes.
    pub arguments: Vec<Vec<u8>>,
    /// What `io.read` reads. Empty by default.
    pub stdin: Bytes,
    /// The directory that relative paths start from; the VM's own where none is named.
    pub working_directory: Option<PathBuf>,
    /// Variables that this run sees besides those granted to its VM.
    pub environment: BTreeMap<String, String>,
}

/// Where a script's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file on the controller's side, read when the run starts.
    File(PathBuf),
    /// The code itself, under the name that error messages use.
    Code {
        /// What error messages and records call it.
        name: String,
        /// Lua source: any bytes.
        code: Bytes,
    },
}

impl Script {
    /// The script in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::from_source(Source::File(path.into()))
    }

    /// Code at hand, under a name for error messages.
    pub fn code(name: impl Into<String>, code: impl Into<Bytes>) -> Self {
        Self::from_source(Source::Code { name: name.into(), code: code.into() })
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            arguments: Vec::new(),
            stdin: Bytes::new(),
            working_directory: None,
            environment: BTreeMap::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: Into<Vec<u8>>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets what the script reads from standard input.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<Bytes>) -> Self {
        self.stdin = input.into();
        self
    }

    /// Sets the directory that relative paths start from.
    #[must_use]
    pub fn working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.working_directory = Some(directory.into());
        self
    }

    /// Adds a variable that `os.getenv` finds.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }
}
