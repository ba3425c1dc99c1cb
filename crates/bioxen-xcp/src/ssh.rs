//! How the controller talks to a guest: over SSH, with keys that both sides know beforehand.
//!
//! ```text
//! Target ──open──▶ Connection ──┬── run, start ──▶ a program with its output and its end
//!                               ├── files        ──▶ SFTP: upload, download, the worker's program
//!                               └── guest::start ──▶ a worker: Link (frames) and Machine (its end)
//! ```
//!
//! One connection carries many channels. Every wait has a deadline from [`Patience`]; a guest that
//! falls silent is given up after [`Patience::silence`], in the middle of whatever is under way.
//! [`Reconnect`] decides when to try again; nothing here reconnects by itself.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bioxen_xcp::ssh::{ClientKey, Command, Connection, HostKey, HostKeyCheck, Login, Target};
//!
//! # async fn example(address: &str) -> Result<(), Box<dyn std::error::Error>> {
//! // Both keys are made before the VM is, and reach it in its seed disk.
//! let (host, ours) = (HostKey::generate("assembler"), ClientKey::generate("assembler"));
//! let target =
//!     Target::new(address, "bioxen", HostKeyCheck::Pinned(host.public()), Login::Key(ours));
//! let connection = Connection::open(&target).await?;
//! let command = Command::new("cloud-init").arguments(["status", "--wait"]);
//! let output = connection.run(&command, "", 64 << 10, Duration::from_mins(5)).await?;
//! println!("{}: {}", output.exit, String::from_utf8_lossy(&output.stdout));
//! connection.close().await;
//! # Ok(())
//! # }
//! ```

mod command;
mod connection;
mod error;
mod exec;
pub mod files;
mod group;
pub mod guest;
mod keys;
mod meter;
mod reconnect;
mod stall;
mod target;
mod trees;

pub use command::Command;
pub use connection::Connection;
pub use error::SshError;
pub use exec::{Execution, Exit, Happening, Input, Output, Signal};
pub use group::Group;
pub use keys::{ClientKey, HostKey, InvalidKey, KeyFingerprint, PublicKey};
pub use reconnect::{Next, Reconnect, ReconnectPolicy};
pub use target::{HostKeyCheck, Login, Patience, Target};
