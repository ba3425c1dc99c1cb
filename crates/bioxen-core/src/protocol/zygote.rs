//! What a controller and its zygote say to each other: one `MessagePack` message a datagram.
//!
//! The zygote forks workers on request. With an order travels the worker's end of its connection; the
//! controller keeps the other end. The zygote tells how each of its workers ended, which may be heard
//! before the answer to the order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Grants, Isolation, Limit, Limits};

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

/// What the system calls that a worker may make depend on. Each zygote makes workers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "four independent grants")]
pub struct Kind {
    /// Files were granted.
    pub files: bool,
    /// The interpreter is a program of its own.
    pub program: bool,
    /// Starting programs was granted, and at least one at a time.
    pub spawn: bool,
    /// Network addresses were granted.
    pub net: bool,
}

impl Kind {
    /// The kind of worker that an order is for.
    pub fn of(order: &Order) -> Self {
        Self {
            files: !order.grants.read.is_empty() || !order.grants.write.is_empty(),
            program: order.program.is_some(),
            spawn: order.grants.spawn && order.limits.child_processes != Limit::Of(0),
            net: !order.grants.net.is_empty(),
        }
    }

    /// Whether it is the kind that only computes.
    pub fn is_bare(self) -> bool {
        self == Self::default()
    }

    /// Whether a worker is tied to its controller by a lifeline of its own: other programs do not
    /// notice that their connection is closed. The built-in interpreter does.
    pub fn has_lifeline(self) -> bool {
        self.program || self.spawn
    }

    fn parts(&mut self) -> [(&'static str, &mut bool); 4] {
        [
            ("files", &mut self.files),
            ("program", &mut self.program),
            ("spawn", &mut self.spawn),
            ("net", &mut self.net),
        ]
    }
}

/// The first argument of a zygote's program: `bare`, or what is granted, joined by `+`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kind = *self;
        let parts = kind.parts().into_iter().filter_map(|(name, is_set)| is_set.then_some(name));
        let names: Vec<_> = parts.collect();
        if names.is_empty() { f.write_str("bare") } else { f.write_str(&names.join("+")) }
    }
}

/// Why a text names no kind of worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of worker")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let mut kind = Self::default();
        if text == "bare" {
            return Ok(kind);
        }
        for name in text.split('+') {
            let part = kind.parts().into_iter().find(|(known, _)| *known == name);
            *part.ok_or_else(|| UnknownKind(text.escape_debug().to_string()))?.1 = true;
        }
        Ok(kind)
    }
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
    /// Processor time over its whole life, in microseconds, where that is known.
    pub cpu_time_us: Option<u64>,
    /// The most resident memory over its whole life, in bytes, where that is known.
    pub peak_resident: Option<u64>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_name() {
        for number in 0..16_u8 {
            let bit = |bit: u8| number & (1 << bit) != 0;
            let kind = Kind { files: bit(0), program: bit(1), spawn: bit(2), net: bit(3) };
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("".parse::<Kind>().is_err());
        assert!("files+rockets".parse::<Kind>().is_err());
    }
}
