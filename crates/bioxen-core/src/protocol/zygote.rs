//! What a controller and its zygote say to each other: one `MessagePack` message a datagram.
//!
//! The zygote forks workers on request. With an order travels the worker's end of its connection; the
//! controller keeps the other end. The zygote tells how each of its workers ended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Grants, Isolation, Limits};

/// The largest datagram on this connection.
pub const LARGEST_DATAGRAM: usize = 192 << 10;

/// An order for one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Counts up; answers carry it.
    pub id: u64,
    /// The interpreter's program; `None` is the built-in one.
    pub program: Option<PathBuf>,
    /// What the worker may touch. Paths are absolute and free of links.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// The variables that its code sees.
    pub environment: BTreeMap<String, String>,
    /// The directory that it starts in.
    pub working_directory: Option<PathBuf>,
    /// The cgroup to enter, as the directories of its hierarchies.
    pub cgroup: Vec<PathBuf>,
}

/// What a zygote says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is up; its workers will share these properties.
    Ready(Isolation),
    /// A worker was forked.
    Forked {
        /// The order's number.
        order: u64,
        /// The worker's process id.
        process: u32,
    },
    /// No worker could be forked.
    Refused {
        /// The order's number.
        order: u64,
        /// Why.
        reason: String,
    },
    /// A worker has ended, and all that it had started.
    Ended {
        /// Its process id.
        process: u32,
        /// How it ended.
        exit: Exit,
    },
}

/// How a worker's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// By itself or by a signal.
    pub how: How,
    /// Processor time over its whole life, in microseconds.
    pub cpu_time_us: u64,
    /// The most resident memory over its whole life, in bytes.
    pub peak_resident: u64,
}

/// By itself or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// Exit codes by which a worker says why it ended itself, when its code did not heed the request to
/// stop.
pub mod exit_code {
    /// The wall-time limit had passed.
    pub const WALL_TIME: i32 = 90;
    /// The limit on processor time had passed.
    pub const CPU_TIME: i32 = 91;
    /// The output limit had been reached.
    pub const OUTPUT: i32 = 92;
    /// The controller had cancelled.
    pub const CANCELLED: i32 = 93;
    /// The code had called `os.exit`.
    pub const EXIT: i32 = 94;
    /// The worker could not get memory outside Lua.
    pub const MEMORY: i32 = 95;
}
