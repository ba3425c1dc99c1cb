//! VMs of type `basic`: one sandboxed worker process each, on this machine.
//!
//! A [`BasicBackend`] starts a zygote when the first VM is asked for, and keeps a few workers
//! standing by, forked and held in, for VMs that ask for nothing special. Dropping the backend ends
//! all of them; so does the death of this process, however it dies.

mod backend;
mod interpreters;
mod link;
mod paths;
mod worker_program;
mod zygote;

pub use backend::BasicBackend;
pub use bioxen_worker::embedded_version;
pub use interpreters::{FoundInterpreter, find as interpreters};
pub use worker_program::{WorkerProgram, init};
