//! What happened to a VM, told once. Logs, progress, tables and the trail are renderings of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

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
    /// A step of making a VM began.
    StepStarted {
        /// Which VM.
        vm: VmName,
        /// The step's name.
        step: &'static str,
        /// When.
        at: Timestamp,
    },
    /// A step of making a VM ended.
    StepEnded {
        /// Which VM.
        vm: VmName,
        /// The step's name.
        step: &'static str,
        /// How long it took, in microseconds in JSON.
        #[serde(rename = "took_us", serialize_with = "as_micros")]
        took: Duration,
        /// Why it failed; `None` if it did not.
        failed: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A VM was not made, and what had been made of it was removed.
    MakingUndone {
        /// Which VM.
        vm: VmName,
        /// What could not be removed, each with the reason.
        left: Vec<String>,
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
            | Self::StepStarted { vm, .. }
            | Self::StepEnded { vm, .. }
            | Self::MakingUndone { vm, .. }
            | Self::RunStarted { vm, .. }
            | Self::VmFailed { vm, .. }
            | Self::VmStopped { vm, .. }
            | Self::VmRemoved { vm, .. } => vm,
            Self::RunEnded { record } => &record.context.vm,
        }
    }
}

fn as_micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
