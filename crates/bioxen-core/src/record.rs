//! What is written down about each run: enough to audit it and to repeat it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::{Digest, Grants, Isolation, Limits, Value, VmName, VmType};

/// The identity of one run: a UUID of version 7, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(id: &str) -> Result<Self, uuid::Error> {
        id.parse().map(Self)
    }
}

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes that running code wrote, in the order in which it wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where they were written to.
    pub stream: Stream,
    /// The bytes exactly.
    pub data: Bytes,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The code returned, or called `os.exit`.
    Finished,
    /// A Lua error that nothing caught, a syntax error included.
    Error,
    /// It ran longer than its limit.
    WallTime,
    /// It used more processor time than its limit.
    CpuTime,
    /// It needed more memory than its limit.
    Memory,
    /// It wrote or returned more than its limit.
    Output,
    /// Its worker was killed by another than us.
    Killed,
    /// Its worker died of a signal such as SIGSEGV.
    Crashed(i32),
    /// Its caller cancelled it.
    Cancelled,
    /// Its worker vanished without a trace of why.
    Lost,
}

impl EndedBy {
    /// The name in records, messages and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Error => "error",
            Self::WallTime => "wall_time",
            Self::CpuTime => "cpu_time",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Killed => "killed",
            Self::Crashed(_) => "crashed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed(signal) => f.pad(&format!("crashed({signal})")),
            other => f.pad(other.name()),
        }
    }
}

impl Serialize for EndedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a run ended, with the numbers behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// The name of the ending.
    pub ended_by: EndedBy,
    /// The limit that was reached, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// How far the run got towards that limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<String>,
    /// What the reader can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What a shell should see: the script's own code, 1 for an error, 124 for a time limit, 137 for
    /// killed or out of memory, 130 for cancelled.
    pub exit_code: i32,
    /// Whether the VM's Lua state survived.
    pub state_kept: bool,
}

/// A Lua error that ended a run.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct LuaError {
    /// The message, as `tostring` gives it; not UTF-8 is shown with replacement characters.
    pub message: String,
    /// The call stack at the error, where the interpreter could tell.
    pub traceback: Option<String>,
    /// The error value, where it was not a string.
    pub value: Option<Value>,
}

impl fmt::Display for LuaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LuaError {}

/// How much a run wrote to one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutputSize {
    /// Bytes delivered.
    pub bytes: u64,
    /// Whether more was written than the limit let through.
    pub cut: bool,
}

/// The code that ran, by name and digest; the code itself is not in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeFacts {
    /// The file's path, or what the caller called it.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// The interpreter that ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterpreterFacts {
    /// What it calls itself: `Lua 5.4.9`, `LuaJIT 2.1.…`.
    pub version: String,
    /// Its program, where it is not the built-in one.
    pub program: Option<PathBuf>,
    /// Operating system and processor: `linux-x86_64`.
    pub platform: String,
}

/// The virtual machine that a VM lives in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineFacts {
    /// The pool, by its name in the configuration.
    pub pool: String,
    /// Its identity on the pool.
    pub uuid: String,
    /// The host that it ran on when Lua was started in it, where that is known.
    pub host: Option<String>,
    /// The template that it was made from, where this controller made it.
    pub template: Option<String>,
    /// Where its guest was reached.
    pub address: String,
    /// How that was learnt: `guest_metrics` or `static`.
    pub address_from: &'static str,
    /// The key that its guest showed, as OpenSSH shows its digest.
    pub host_key: String,
    /// The digest of the disk by which its guest set itself up, where this controller made it.
    pub seed: Option<Digest>,
}

/// What all runs of one VM have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunContext {
    /// The VM's name.
    pub vm: VmName,
    /// The backend it lives on.
    pub backend: VmType,
    /// Its interpreter.
    pub interpreter: InterpreterFacts,
    /// The digest of its environment: the Lua version and the locked packages.
    pub environment: Digest,
    /// What it may touch.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// What holds it in.
    pub isolation: Isolation,
    /// The virtual machine that it lives in; processes of this machine live in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
}

/// The record of one run. In JSON, times are whole microseconds and sizes whole bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRecord {
    /// The version of this format: 1.
    pub format: u32,
    /// The run's identity.
    pub run: RunId,
    /// The VM, its backend, grants, limits and isolation.
    #[serde(flatten)]
    pub context: Arc<RunContext>,
    /// The code.
    pub code: CodeFacts,
    /// Its arguments.
    #[serde(serialize_with = "arguments_as_values")]
    pub arguments: Vec<Vec<u8>>,
    /// Whether it ran in a Lua state of its own.
    pub fresh: bool,
    /// When it started.
    pub started: Timestamp,
    /// How long it took, as its caller saw it.
    #[serde(rename = "duration_us", serialize_with = "as_micros")]
    pub duration: Duration,
    /// Processor time that it used; unknown when its worker died.
    #[serde(rename = "cpu_time_us", serialize_with = "as_optional_micros")]
    pub cpu_time: Option<Duration>,
    /// The most memory held at once, in bytes; unknown when its worker died unasked.
    ///
    /// For the built-in interpreter: by Lua, in this run's state. For an external program: by its
    /// whole process since it started.
    #[serde(rename = "peak_memory_bytes")]
    pub peak_memory: Option<u64>,
    /// What went to standard output.
    pub stdout: OutputSize,
    /// What went to standard error.
    pub stderr: OutputSize,
    /// What the code returned.
    pub values: Vec<Value>,
    /// The error that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LuaError>,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
}

fn as_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn as_optional_micros<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_micros(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn arguments_as_values<S: Serializer>(
    arguments: &[Vec<u8>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(arguments.iter().map(|argument| Value::String(argument.clone())))
}
