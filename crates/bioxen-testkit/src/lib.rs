//! What the tests of several crates need: a fleet whose worker is freshly built, helpers to look at
//! processes and to wait for them, and the contract that every kind of VM keeps.
//!
//! Never published. Whatever goes wrong in here fails the test that called it.

#![allow(clippy::format_collect, reason = "tests build small texts the short way")]
#![allow(clippy::missing_panics_doc, reason = "failing is what these functions are for")]

mod alone;
pub mod contract;
mod interpreters;
pub mod processes;
mod scratch;
mod waiting;
mod worker;

use bioxen::Fleet;

pub use alone::{in_own_process, own_test_name, role, test_command};
pub use interpreters::{INTERPRETERS, installed_interpreters, interpreter, skip};
pub use processes::Process;
pub use scratch::{Scratch, Seen};
pub use waiting::{PATIENCE, block_on, eventually, wait_until};
pub use worker::worker_program;

/// A fleet with a freshly built worker and nothing standing by, so that it has the processes that its
/// VMs need and no others.
pub fn fleet() -> Fleet {
    Fleet::builder().worker_program(worker_program()).standby(0).build()
}
