//! Moving bytes beside messages: what is common to disks and images.
//!
//! ```text
//! task.create ──▶ head of the request ──▶ head of the answer ──▶ bytes ──▶ the task ends ──▶ task.destroy
//! ```
//!
//! The server answers 200 before it has seen a byte, and whether a transfer succeeded is told by its
//! task alone. So the head goes first and the answer is waited for: a host that sends elsewhere or
//! refuses does so before the source has been read.

mod download;
mod exchange;
mod frames;
mod meter;
mod place;
mod sink;
mod source;
mod upload;
mod verdict;
pub(crate) mod zeros;

use std::fmt;
use std::io;
use std::time::Duration;

pub use download::Download;
pub use meter::TransferProgress;
pub use sink::{Saved, write_sparse};
pub use source::Source;

pub(crate) use download::Fetch;
pub(crate) use exchange::{Ask, Exchange, Target};
pub(crate) use meter::{Meter, Report};
pub(crate) use place::{address_of, master_of, open, with_storage};
pub(crate) use upload::{Form, Upload};

use meter::patiently;
use place::Opened;
use source::{Block, Piece};

use crate::error::Error;
use crate::failure::Failure;
use crate::tasks::TaskError;
use crate::transport::Endpoint;

/// What was being moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into a disk.
    DiskImport,
    /// Out of a disk.
    DiskExport,
    /// Into new VMs.
    VmImport,
    /// Out of a VM.
    VmExport,
}

impl Direction {
    fn is_import(self) -> bool {
        match self {
            Self::DiskImport | Self::VmImport => true,
            Self::DiskExport | Self::VmExport => false,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskImport => "import into disk",
            Self::DiskExport => "export disk",
            Self::VmImport => "import a VM into storage",
            Self::VmExport => "export VM",
        })
    }
}

/// Why a transfer did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("could not {direction} `{object}`{}", place(.host.as_ref(), *.direction, *.bytes))]
pub struct TransferError {
    /// What was being moved.
    pub direction: Direction,
    /// The reference of the disk, the VM or, for new VMs, the storage.
    pub object: String,
    /// The host at the other end, once it was chosen.
    pub host: Option<Endpoint>,
    /// How many bytes had been sent or received.
    pub bytes: u64,
    /// What went wrong.
    #[source]
    pub reason: TransferFailure,
}

impl TransferError {
    /// What the reader can do about it, where something general can be said.
    pub fn hint(&self) -> Option<String> {
        self.reason.hint()
    }

    /// Whether the same transfer can succeed later without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        self.reason.is_retryable()
    }
}

/// An error from before a host was chosen.
pub(crate) fn unstarted(
    direction: Direction,
    object: String,
    reason: TransferFailure,
) -> TransferError {
    TransferError { direction, object, host: None, bytes: 0, reason }
}

fn place(host: Option<&Endpoint>, direction: Direction, bytes: u64) -> String {
    let Some(host) = host else { return String::new() };
    let (preposition, done) =
        if direction.is_import() { ("at", "sent") } else { ("from", "received") };
    format!(" {preposition} `{host}` after {bytes} bytes were {done}")
}

/// What went wrong in a transfer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferFailure {
    /// A call that belongs to it failed, or a host could not be reached.
    #[error("a call that belongs to it failed")]
    Call(#[from] Error),
    /// Its task, which is named after the direction, failed, was cancelled or vanished, or its result could
    /// not be understood.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// No host is connected to the storage.
    #[error("no host is connected to the storage `{storage}`")]
    NoHost {
        /// The reference of the storage.
        storage: String,
    },
    /// The host answered with something else than success.
    #[error("the host answered with HTTP status {status}: {excerpt}")]
    Refused {
        /// The status.
        status: u16,
        /// How its page begins.
        excerpt: String,
        /// What the task says, if the host told it.
        source: Option<Failure>,
    },
    /// The host sent it to where it must not go, or round in circles.
    #[error("it was sent on to `{location}`, which is not followed")]
    Redirected {
        /// Where it was sent.
        location: String,
    },
    /// The connection broke.
    #[error("the connection was lost")]
    Connection(#[source] io::Error),
    /// Nothing happened for too long.
    #[error("nothing moved for {after:?} while {waiting}")]
    Stalled {
        /// How long it was waited for.
        after: Duration,
        /// What was waited for.
        waiting: Stage,
    },
    /// The source could not be read.
    #[error("its source could not be read")]
    Source(#[source] io::Error),
    /// What was exported could not be written.
    #[error("what was received could not be written")]
    Sink(#[source] io::Error),
    /// The source has fewer bytes than were announced.
    #[error("its source ended after {found} of {expected} bytes")]
    SourceTooShort {
        /// How many there were.
        found: u64,
        /// How many were announced.
        expected: u64,
    },
    /// The disk is smaller than the source.
    #[error("the disk has {size} bytes, and the source {length}")]
    DiskTooSmall {
        /// The size of the disk.
        size: u64,
        /// The length of the source.
        length: u64,
    },
    /// The server said that it was done before it had all.
    #[error("the server's task succeeded before all bytes were sent")]
    EndedEarly,
    /// There was less to receive than there should have been.
    #[error("it ended after {found} bytes and not {expected}")]
    Truncated {
        /// How many there were.
        found: u64,
        /// How many there should have been.
        expected: u64,
    },
}

/// What a transfer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The host to answer.
    #[default]
    Answer,
    /// The source to be read.
    Source,
    /// The host to take what is sent.
    Sending,
    /// The host to send.
    Receiving,
    /// The task to end after all was moved.
    Task,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "waiting for the answer",
            Self::Source => "waiting for the source",
            Self::Sending => "sending",
            Self::Receiving => "receiving",
            Self::Task => "waiting for the task to end",
        })
    }
}

impl TransferFailure {
    /// What the reader can do about it, where something general can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Call(error) => error.hint()?,
            Self::Connection(_)
            | Self::Stalled { .. }
            | Self::Task(TaskError::Vanished { .. } | TaskError::Timeout { .. }) => {
                "look at the host's own log, and try again from the start".into()
            }
            Self::Task(error) => match error.code() {
                Some("VDI_IN_USE") => "detach the disk from its VM, or shut the VM down".into(),
                _ => error.hint()?,
            },
            Self::NoHost { .. } => "plug a PBD of the storage, on any host".into(),
            Self::DiskTooSmall { length, .. } => {
                format!("make the disk at least {length} bytes large")
            }
            Self::Redirected { .. } => "give the address of that host to the client".into(),
            Self::Refused { source: Some(failure), .. } => failure.hint()?.into(),
            Self::Refused { status: 401 | 403, .. } => {
                "log in as a user with a role that allows it".into()
            }
            Self::Refused { .. }
            | Self::Source(_)
            | Self::Sink(_)
            | Self::SourceTooShort { .. }
            | Self::EndedEarly
            | Self::Truncated { .. } => return None,
        })
    }

    /// Whether the same transfer can succeed later without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            // Unlike a message, a transfer can be done again from its start.
            Self::Task(TaskError::Vanished { .. } | TaskError::Timeout { .. })
            | Self::Connection(_)
            | Self::Stalled { .. }
            | Self::EndedEarly
            | Self::Truncated { .. } => true,
            Self::Task(error) => error.is_retryable(),
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 502..=504),
            Self::NoHost { .. }
            | Self::Redirected { .. }
            | Self::Source(_)
            | Self::Sink(_)
            | Self::SourceTooShort { .. }
            | Self::DiskTooSmall { .. } => false,
        }
    }
}
