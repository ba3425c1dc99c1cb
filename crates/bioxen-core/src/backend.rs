//! The seam between the fleet and the places where VMs live.
//!
//! A backend makes a VM and hands over a connection to its worker; everything that is said over it
//! (evaluations, limits, records) is the same for all backends and lives above this seam.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;

use crate::protocol::Hello;
use crate::protocol::zygote::Exit;
use crate::{
    Event, Grants, InterpreterFacts, Isolation, MachineFacts, Mechanism, VmName, VmSpec, VmType,
};

/// A kind of place in which VMs live. Implemented by `bioxen_basic::BasicBackend`.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The type of VM that it makes.
    fn vm_type(&self) -> VmType;

    /// Gives a VM a worker that is ready to evaluate, with an empty Lua state. Whatever else the VM needs
    /// to live in is made the first time, and found again later.
    ///
    /// When this fails, or its future is dropped, nothing is left behind that was not there before.
    async fn start(&self, spec: &VmSpec) -> Result<Started, StartError>;

    /// Ends for good what a VM lives in besides its worker, which has ended. A repeat does nothing.
    async fn remove(&self, _vm: &VmName) -> Result<(), ShutdownError> {
        Ok(())
    }

    /// Tells it who is to hear of what happens while VMs are made. It is called once, before all else.
    fn report_to(&self, _report: Report) {}

    /// Ends all that this backend started and returns when it is gone. A repeat does nothing.
    async fn shutdown(&self) -> Result<(), ShutdownError>;
}

/// Who hears of events. It never waits.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// A VM that has just been started.
pub struct Started {
    /// The connection to its worker, whose introduction has been read.
    pub link: Box<dyn Link>,
    /// Its worker, from outside.
    pub machine: Box<dyn Machine>,
    /// The interpreter that runs in it.
    pub interpreter: InterpreterFacts,
    /// What holds it in.
    pub isolation: Isolation,
    /// The spec's grants as they were applied: paths absolute and free of links.
    pub grants: Grants,
    /// The granted variables with their values.
    pub environment: BTreeMap<String, String>,
    /// The directory that relative paths start from, if the worker has one.
    pub working_directory: Option<PathBuf>,
    /// The virtual machine that it runs in, if it runs in one.
    pub machine_facts: Option<MachineFacts>,
}

/// One worker, from outside: how to end it, and how it ended.
#[async_trait]
pub trait Machine: Send + Sync {
    /// The worker's process on this machine, if it has one here.
    fn process(&self) -> Option<u32>;

    /// Ends the worker at once, with all that it started. Ending an ended one does nothing.
    fn kill(&self);

    /// Waits until the worker has ended. `None` when nobody could tell how.
    async fn ended(&self) -> Option<Exit>;

    /// Brings what is known of processor time and memory up to date, where that takes asking somebody
    /// else. It is called at the end of a run in an interpreter that is a program of its own.
    async fn measure(&self) {}

    /// Processor time that the worker has used so far, where that can be asked.
    fn cpu_time(&self) -> Option<Duration> {
        None
    }

    /// The most resident memory that the worker's process has had, where that can be asked.
    fn peak_memory(&self) -> Option<u64> {
        None
    }
}

/// A byte stream to a worker.
#[async_trait]
pub trait Link: Send {
    /// Sends all of `frame`. When the future is dropped part of it may have gone, and the connection
    /// is of no more use.
    async fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// Waits for bytes and appends them; 0 means that the worker closed the connection. Dropping the
    /// future loses nothing.
    async fn receive(&mut self, space: &mut BytesMut) -> io::Result<usize>;
}

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interpreter was not found, or is none.
    #[error("interpreter `{program}` cannot be used: {reason}")]
    Interpreter {
        /// As it was asked for.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A granted path, or the working directory, is not there.
    #[error("path `{path}` cannot be granted to vm `{vm}`")]
    Path {
        /// The path as it was given.
        path: String,
        /// The VM.
        vm: String,
        /// What the system says.
        source: io::Error,
    },
    /// A demanded mechanism of isolation could not be reached.
    #[error("vm `{vm}` cannot be isolated as demanded: {missing}")]
    Isolation {
        /// The VM.
        vm: String,
        /// Each missing mechanism with the reason.
        missing: String,
    },
    /// The worker's program is not there or would not start.
    #[error("the worker program could not be started: {what}")]
    WorkerProgram {
        /// What was tried.
        what: String,
        /// What the system says, where it was asked.
        source: Option<io::Error>,
    },
    /// This machine has no more processes, descriptors or memory to give.
    #[error("this machine cannot hold another vm: {what}")]
    Exhausted {
        /// What has run out.
        what: String,
        /// What the system says.
        source: Option<io::Error>,
    },
    /// The worker said something that makes no sense, or ended before it was ready.
    #[error("the worker of vm `{vm}` did not come up: {reason}")]
    Worker {
        /// The VM.
        vm: String,
        /// What was seen.
        reason: String,
    },
    /// The machine that it was to live in was not made, or not reached.
    #[error("the machine of vm `{vm}` cannot be used")]
    Machine {
        /// The VM.
        vm: String,
        /// What to do next.
        hint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This kind of VM does not work on this operating system.
    #[error("{0}")]
    Unsupported(String),
}

impl Isolation {
    /// Checks that all that a spec demands was reached.
    pub fn meets(&self, spec: &VmSpec) -> Result<(), StartError> {
        let lacking = self.lacking(&spec.required_isolation);
        if lacking.is_empty() {
            return Ok(());
        }
        let reason = |mechanism: &Mechanism| {
            let reason = self.missing.get(mechanism).map_or("unknown", |reason| reason.as_str());
            format!("{mechanism} is missing ({reason})")
        };
        Err(StartError::Isolation {
            vm: spec.name.to_string(),
            missing: lacking.iter().map(reason).collect::<Vec<_>>().join("; "),
        })
    }
}

impl StartError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Interpreter { .. } => {
                "`bioxen doctor` lists the interpreters of this machine; the built-in Lua 5.4 needs none".into()
            }
            Self::Path { path, .. } => format!("create `{path}` first, or name an existing one"),
            Self::Isolation { .. } => {
                "`bioxen doctor` says what this machine offers and how to get the rest".into()
            }
            Self::WorkerProgram { .. } => {
                "install it with `cargo install bioxen-cli`, name it in BIOXEN_WORKER, or call `bioxen::init()` first in `main`".into()
            }
            Self::Exhausted { .. } => {
                "remove VMs that are not needed, or raise the limit (`ulimit -n`, `ulimit -u`)".into()
            }
            Self::Worker { .. } => "run `bioxen doctor`; if it finds nothing, please report this".into(),
            Self::Machine { hint, .. } => hint.clone(),
            Self::Unsupported(_) => "use a Linux machine, or VMs of type `xcpng`".into(),
        }
    }
}

/// Why a backend could not clean up.
#[derive(Debug, thiserror::Error)]
#[error("{left} could not be ended")]
pub struct ShutdownError {
    /// What was left.
    pub left: String,
    /// Why, where that is known.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A worker speaks another version of the protocol, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker speaks version {theirs} of the protocol and this program speaks {ours}")]
pub struct VersionMismatch {
    /// The worker's.
    pub theirs: u32,
    /// This program's.
    pub ours: u32,
}

impl Hello {
    /// Checks that the worker speaks this program's version.
    pub fn check_version(&self) -> Result<(), VersionMismatch> {
        if self.protocol == crate::protocol::VERSION {
            Ok(())
        } else {
            Err(VersionMismatch { theirs: self.protocol, ours: crate::protocol::VERSION })
        }
    }
}
