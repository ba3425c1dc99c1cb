//! What happened to a VM, told once. Logs, progress, tables and the trail are renderings of it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::{RunId, RunRecord, VmName, VmType};

/// Something that happened in a fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A VM was created and is ready.
    VmCreated {
        /// Which.
        vm: VmName,
        /// Its type.
        backend: VmType,
        /// When.
        at: Timestamp,
    },
    /// A stopped or failed VM was started again, with an empty Lua state.
    VmStarted {
        /// Which.
        vm: VmName,
        /// When.
        at: Timestamp,
    },
    /// A run began.
    RunStarted {
        /// Where.
        vm: VmName,
        /// Which run.
        run: RunId,
        /// When.
        at: Timestamp,
    },
    /// A run ended; its record tells how.
    RunEnded {
        /// The whole record.
        record: Arc<RunRecord>,
    },
    /// A VM's worker ended unasked.
    VmFailed {
        /// Which.
        vm: VmName,
        /// How.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// A VM was stopped.
    VmStopped {
        /// Which.
        vm: VmName,
        /// When.
        at: Timestamp,
    },
    /// A VM was removed; its name is free again.
    VmRemoved {
        /// Which.
        vm: VmName,
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// The VM that it happened to.
    pub fn vm(&self) -> &VmName {
        match self {
            Self::VmCreated { vm, .. }
            | Self::VmStarted { vm, .. }
            | Self::RunStarted { vm, .. }
            | Self::VmFailed { vm, .. }
            | Self::VmStopped { vm, .. }
            | Self::VmRemoved { vm, .. } => vm,
            Self::RunEnded { record } => &record.context.vm,
        }
    }
}
