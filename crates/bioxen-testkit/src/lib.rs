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
mod standalone;
mod waiting;
mod worker;

use bioxen::Fleet;

pub use alone::{in_own_process, own_test_name, role, test_command};
pub use interpreters::{INTERPRETERS, installed_interpreters, interpreter, skip};
pub use processes::Process;
pub use scratch::{Scratch, Seen};
pub use standalone::{StandaloneBackend, Wire};
pub use waiting::{PATIENCE, block_on, eventually, wait_until};
pub use worker::{guest_worker_program, worker_program};

/// Names the [`Wire`] over which the VMs of [`fleet`] run by themselves, without a zygote.
pub const STANDALONE: &str = "BIOXEN_TEST_STANDALONE";

/// A fleet with a freshly built worker and nothing standing by, so that it has the processes that its
/// VMs need and no others.
///
/// Its workers are forked by a zygote, unless [`STANDALONE`] is set.
pub fn fleet() -> Fleet {
    let builder = Fleet::builder().worker_program(worker_program()).standby(0);
    match std::env::var(STANDALONE) {
        Ok(wire) => standalone_fleet(wire.parse().expect("it names a wire")),
        Err(_) => builder.build(),
    }
}

/// A fleet whose workers run by themselves, as in a guest.
pub fn standalone_fleet(wire: Wire) -> Fleet {
    let backend = StandaloneBackend::new(worker_program(), wire);
    Fleet::builder().backend(std::sync::Arc::new(backend)).build()
}
