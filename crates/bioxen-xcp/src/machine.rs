//! What becomes of a VM once it is on a pool: starting and stopping it, its snapshots and copies, moving
//! and resizing it, and its end.
//!
//! Each verb is asked of the pool as a task and followed by events. What somebody else did meanwhile is no
//! failure where the wanted state is reached, and what the pool is too busy for is asked again until the
//! deadline of the [`Machine`] passes.
//!
//! ```text
//! Halted ──start──▶ Running ──pause──▶ Paused ──unpause, start──▶ Running
//!   ▲                 │  ▲                │
//!   ├◀──stop──────────┘  └─resume, start─ Suspended ◀──suspend── Running
//!   └◀──stop── from Paused and Suspended
//! ```

mod asking;
mod cloning;
mod deletion;
mod details;
mod disks;
mod error;
mod find;
mod migration;
mod power;
mod resizing;
mod snapshots;
mod tagging;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;
use xenapi::{Ref, class, enums, vm};

use crate::connected_pool::ConnectedPool;
use crate::tags::Tags;

pub use cloning::{NewVm, UnfinishedCopy};
pub use deletion::Deleted;
pub(crate) use deletion::Marks;
pub use details::{Details, Interface};
pub use disks::Disk;
pub(crate) use disks::{bytes, disks};
pub use error::{Cause, MachineError, Refusal};
pub use find::Candidate;
pub(crate) use find::near;
pub use power::{Rebooted, Started, Stop, Stopped, WhyHard};
pub use resizing::{Resize, ResizePlan, Resized, Size};
pub use snapshots::{Restored, Snapshot};

/// How long a verb may take unless [`Machine::within`] says otherwise.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// One VM of a pool.
///
/// ```no_run
/// # use std::{sync::Arc, time::Duration};
/// use bioxen_xcp::machine::Stop;
/// use bioxen_xcp::{ConnectedPool, Machine};
///
/// # async fn example(pool: &Arc<ConnectedPool>) -> Result<(), Box<dyn std::error::Error>> {
/// let machine = Machine::find(pool, "assembler")?;
/// machine.snapshot("before-upgrade").await?;
/// machine.start(None).await?;
/// machine.stop(Stop { grace: Duration::from_secs(60) }).await?;
/// machine.restore("before-upgrade", false).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Machine {
    pool: Arc<ConnectedPool>,
    reference: Ref<class::Vm>,
    uuid: Uuid,
    name: String,
    patience: Duration,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// By this call.
    Now,
    /// It was so before, or somebody else did it meanwhile.
    Already,
}

/// What a VM is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It is off.
    Halted,
    /// It stands still on its host.
    Paused,
    /// It runs.
    Running,
    /// It stands still, and its memory is on disk.
    Suspended,
    /// The pool says something else.
    Unknown,
}

impl From<&enums::VmPowerState> for PowerState {
    fn from(state: &enums::VmPowerState) -> Self {
        match state {
            enums::VmPowerState::Halted => Self::Halted,
            enums::VmPowerState::Paused => Self::Paused,
            enums::VmPowerState::Running => Self::Running,
            enums::VmPowerState::Suspended => Self::Suspended,
            enums::VmPowerState::Unknown(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Halted => "halted",
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Unknown => "in an unknown state",
        })
    }
}

impl Machine {
    /// The VM of this name or uuid. Templates, snapshots and control domains are no VMs.
    pub fn find(pool: &Arc<ConnectedPool>, name_or_uuid: &str) -> Result<Self, MachineError> {
        let candidates = find::candidates(&pool.mirror().view());
        let found = find::choose(&candidates, name_or_uuid, pool.name().as_str())?;
        Ok(Self::new(pool, found.reference.clone(), found.uuid, &found.name))
    }

    /// All VMs, by name.
    pub fn all(pool: &Arc<ConnectedPool>) -> Vec<Self> {
        let mut candidates = find::candidates(&pool.mirror().view());
        candidates.retain(|candidate| candidate.kind == find::Kind::Vm);
        candidates.sort_by(|one, other| (&one.name, one.uuid).cmp(&(&other.name, other.uuid)));
        let machine = |it: &Candidate| Self::new(pool, it.reference.clone(), it.uuid, &it.name);
        candidates.iter().map(machine).collect()
    }

    /// The VM with this reference, by what the mirror shows of it.
    pub(crate) fn of(pool: &Arc<ConnectedPool>, reference: &Ref<class::Vm>) -> Option<Self> {
        let record = pool.mirror().get(reference)?;
        let uuid = record.uuid.parse().ok()?;
        Some(Self::new(pool, reference.clone(), uuid, &record.name_label))
    }

    fn new(pool: &Arc<ConnectedPool>, reference: Ref<class::Vm>, uuid: Uuid, name: &str) -> Self {
        Self { pool: Arc::clone(pool), reference, uuid, name: name.into(), patience: PATIENCE }
    }

    /// Gives each verb this time, instead of [`PATIENCE`].
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The name that it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// What it is referred to by.
    pub fn reference(&self) -> &Ref<class::Vm> {
        &self.reference
    }

    /// Where it is.
    pub fn pool(&self) -> &Arc<ConnectedPool> {
        &self.pool
    }

    /// Its marks; `None` where it is not ours, or gone.
    pub fn tags(&self) -> Option<Tags> {
        Tags::read(&self.pool.mirror().get(&self.reference)?.other_config)
    }

    /// What the mirror shows of it.
    fn record(&self) -> Result<Arc<vm::Record>, MachineError> {
        let record = self.pool.mirror().get(&self.reference);
        record.ok_or_else(|| MachineError::Gone { vm: self.name.clone() })
    }

    fn refused(&self, step: &'static str, reason: Refusal) -> MachineError {
        MachineError::Refused { vm: self.name.clone(), step, reason: Box::new(reason) }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name)
            .field("uuid", &self.uuid)
            .finish_non_exhaustive()
    }
}
