//! The async runtime: one thread, started only by commands that need it.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;

/// A runtime on this thread.
pub(crate) fn new() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)
}

/// Runs `work` to its end on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = new()?;
    let outcome = runtime.block_on(work);
    // A thread that still waits for standard input must not hold up the end of the command.
    runtime.shutdown_background();
    outcome
}
