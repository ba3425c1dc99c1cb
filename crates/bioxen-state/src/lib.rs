//! What outlives a command: VMs on pools, the addresses they were given, and who sees to them.
//!
//! All of it is in one SQLite database, `state.db` in the state directory, which any number of
//! processes use at once. What a call has returned is there after a `kill -9`, and what it has not
//! returned is there as a whole or not at all. The hypervisor has the last word on what exists: a row
//! says what we know of a VM, and the tags on the pool say that it is ours.
//!
//! Every call blocks, for as long as another process writes; async callers wrap them in
//! `spawn_blocking`. Nothing here looks at the clock or at a pool.
//!
//! ```
//! use bioxen_state::{NewVm, Source, State};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let state = State::open(directory.path())?;
//! let controller = state.controller()?;
//! let vm = state.begin(NewVm {
//!     name: "assembler".parse()?,
//!     pool: "lab".into(),
//!     pool_uuid: "7a6e4f5e-0f2b-4f0c-8d0f-3f2b0a1c5d6e".into(),
//!     source: Source::Template {
//!         name: "Debian 12".into(),
//!         uuid: "b9f1c1f0-5a41-4a3e-9a53-9f7d6a1f7f10".into(),
//!         making_label: "bioxen-making-assembler".into(),
//!     },
//!     created: "2026-01-05T10:00:00Z".parse()?,
//!     expires: None,
//!     controller: Some(controller.id()),
//!     spec: "{}".into(),
//! })?;
//! // … clone it on the pool …
//! state.update(vm.name(), |vm| vm.uuid = Some("0c1d…".into()))?;
//! state.ready(vm.name())?;
//! state.release(vm.name())?;
//! assert_eq!(state.vms()?.len(), 1);
//! # Ok(())
//! # }
//! ```

mod controllers;
mod error;
mod files;
mod leases;
mod schema;
mod secret;
mod state;
mod vm;
mod vms;

pub use controllers::Controller;
pub use error::StateError;
pub use leases::Network;
pub use secret::Secret;
pub use state::State;
pub use vm::{Address, KnownBy, NewVm, Phase, Source, Vm};
