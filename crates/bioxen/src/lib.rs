//! Runs Lua in isolated VMs, each with its own limits and grants, and records every run.
//!
//! A [`Fleet`] makes [`Vm`]s out of [`VmSpec`]s. Code runs in them by [`Vm::eval`], [`Vm::run`] and
//! [`Vm::session`], and each run gives a [`Run`]: its output, and a [`RunRecord`] that says what ran,
//! where, under which limits and grants, and how it ended. Handles are cheap to clone; calls on one VM
//! queue in order, and VMs run side by side.
//!
//! ```standalone_crate
//! use bioxen::{Fleet, VmSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! bioxen::init(); // first in `main`: lets this program be its own worker
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let fleet = Fleet::new();
//! let vm = fleet.create(VmSpec::basic("analysis")?).await?;
//! vm.eval("sequence = 'GATTACA'").await?.into_result()?;
//! let run = vm.eval("select(2, sequence:gsub('[GC]', '')) / #sequence").await?.into_result()?;
//! assert_eq!(run.value().as_f64(), Some(2.0 / 7.0));
//! let refused = vm.eval("assert(io.open('/etc/passwd'))").await?;
//! assert!(refused.record.error.unwrap().message.contains("--allow-read /etc/passwd"));
//! fleet.shutdown().await?;
//! # Ok(()) })
//! # }
//! ```
//!
//! Without an async runtime, use [`blocking`]: the same verbs.

pub mod blocking;
mod connection;
mod evaluation;
mod events;
mod fleet;
mod group;
mod outcome;
mod session;
mod vm;
mod watchdog;

pub use bioxen_basic::{FoundInterpreter, WorkerProgram, init};
pub use bioxen_core::*;
pub use evaluation::{Canceller, EvalError, Evaluation, Run, RunFailed, Running};
pub use events::Events;
pub use fleet::{CreateError, Fleet, FleetBuilder, FleetStats, NoSuchVm, RemoveError};
pub use group::{Broadcast, CreateGroupError, Group, Removed};
pub use session::Session;
pub use vm::{StartVmError, StopError, Vm, VmInfo};

/// The interpreters of this machine: the built-in one, and those on `PATH`.
///
/// Runs each of them once, to ask for its version.
pub fn interpreters() -> Vec<FoundInterpreter> {
    let embedded = FoundInterpreter {
        name: "embedded".into(),
        version: bioxen_basic::embedded_version(),
        program: None,
    };
    std::iter::once(embedded).chain(bioxen_basic::interpreters()).collect()
}

/// The Rust in the documents is compiled and run.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/how-to/use-the-library.md")]
    struct UseTheLibrary;
}
