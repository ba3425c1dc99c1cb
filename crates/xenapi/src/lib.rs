//! A typed async client for the Xen API, the management API of XCP-ng and `XenServer`.
//!
//! ```no_run
//! use xenapi::{Client, Secret, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://xcp-01.example")?
//!     .trust(Trust::fingerprint("3a:5f:…".parse()?))
//!     .login("root", Secret::from("correct horse"))
//!     .connect()
//!     .await?;
//! for (reference, vm) in &client.vm().get_all_records().await? {
//!     println!("{reference} {} is {}", vm.name_label, vm.power_state);
//! }
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`] holds the session and has the messages of every class: `client.vm().start(…)`.
//! - A message is a [`Call`], a plain value until it is awaited; those that take long are an
//!   [`AsyncCall`], which can start a [`Task`] instead.
//! - [`Ref`] refers to an object of one class, and each class has its `Record`: [`vm::Record`].
//! - [`Client::watch`] tells what happens in a pool, and a [`Mirror`] is a copy of it that stays current.
//! - [`Error`] says what went wrong where, and [`Failure`] what the server said.
//! - [`disk`] and [`image`] move disks and whole VMs as streams, and a [`TransferError`] says how far one came;
//!   [`metrics`] has what hosts measured, and [`Client::open_console`] gives the bytes of a console.
//! - An error has a `hint`, which says what to do next. Its message does not repeat its `source`: show both.
//! - [`wire`] has requests and answers as plain values, without any I/O.
//!
//! Without the feature `full` there are the classes that virtual machines, storage, networks, hosts
//! and pools need; with it there are all.

mod any;
mod call;
mod client;
mod console_stream;
pub mod disk;
mod error;
pub mod events;
mod failure;
#[expect(
    clippy::all,
    clippy::pedantic,
    reason = "generated code is as regular as the model, not as short as it could be"
)]
mod generated;
pub mod image;
pub mod metrics;
pub mod mirror;
mod prelude;
mod secrecy;
pub mod tasks;
mod tls;
pub mod transfer;
mod transport;
pub mod wire;

pub use any::{AnyRecord, AnyRef, Unwatchable, Watched};
pub use call::{AsyncCall, Call};
pub use client::{Builder, Client, Ready};
pub use console_stream::{ConsoleError, ConsoleStream};
pub use error::{Error, Waiting};
pub use events::{Change, Watch};
pub use failure::{Failure, FailureKind};
pub use generated::*;
pub use jiff::Timestamp;
pub use mirror::Mirror;
pub use secrecy::Secret;
pub use tasks::{Task, TaskError, TaskProgress};
pub use tls::{Fingerprint, InvalidFingerprint, InvalidPem, TlsError, Trust};
pub use transfer::{Source, TransferError, TransferFailure, TransferProgress};
pub use transport::{Endpoint, InvalidAddress};
pub use wire::{EventBatch, Map, Object, Recorded, Ref, Value};

/// The README's example, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Doors for fuzzing to what is not public.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    /// What a client makes of what a server sends it in pieces of this size, as text; nothing where that is not
    /// answers all through, or the body of one is larger than the limit.
    pub fn answers(pieces: usize, limit: usize, bytes: &[u8]) -> Option<String> {
        let received = crate::transport::receive_in(pieces, limit, bytes).ok()?;
        Some(format!("{received:?}"))
    }
}
