//! Where a VM is in its life.
//!
//! ```text
//! Stopped ──start──▶ Starting ──ready──▶ Running ──stop──▶ Stopped
//!                       └──────────────────┴──worker died──▶ Failed ──start──▶ Starting
//! ```

use jiff::Timestamp;
use serde::Serialize;

/// Where a VM is in its life, with what is known only there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum VmState {
    /// It has no worker and no Lua state; `start` gives it new ones.
    Stopped,
    /// Its worker is being made.
    Starting,
    /// It can run code, or is running some.
    Running {
        /// When its present worker became ready.
        since: Timestamp,
        /// The worker's process id, where the worker is a process of this machine.
        process: Option<u32>,
        /// Whether code runs in it now.
        busy: bool,
    },
    /// Its worker ended unasked, and with it the Lua state; `start` gives it new ones.
    Failed {
        /// When that was noticed.
        at: Timestamp,
        /// How the worker ended.
        reason: String,
    },
}

impl VmState {
    /// The state's name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Failed { .. } => "failed",
        }
    }
}

/// How well a VM is, at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "overall_health", content = "findings", rename_all = "snake_case")]
pub enum Health {
    /// Running (or stopped on request) with every mechanism of isolation that this kind of VM uses.
    Healthy,
    /// It works, with less than it could have; each finding says what is missing and why.
    Degraded(Vec<String>),
    /// It cannot run code now; each finding says why.
    Error(Vec<String>),
}
