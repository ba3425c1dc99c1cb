//! Why the simulated pool could not be started, found or ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::NAME;

/// Why nothing came of `bioxen sim …`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulatorError {
    /// Somebody else's pool has the name.
    #[error("there is a pool `{NAME}` in the configuration that is not the simulated one")]
    NameTaken,
    /// A file of the simulator's could not be used.
    #[error("could not {action} `{}`", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// What tells of the running pool makes no sense.
    #[error("`{}` tells nothing of a simulated pool: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// The program could not be started.
    #[error("could not start the simulated pool's process")]
    Spawn(#[source] io::Error),
    /// It ended before it was ready.
    #[error("the simulated pool did not start{}", told(complaint))]
    Ended { log: PathBuf, complaint: String },
    /// It was not ready in time.
    #[error("the simulated pool was not ready within {} s", limit.as_secs())]
    NotReady { log: PathBuf, limit: Duration },
    /// It cannot be ended.
    #[error("process {pid} of the simulated pool could not be told to end")]
    Signal { pid: i32, source: io::Error },
    /// It does not end.
    #[error("process {pid} of the simulated pool does not end")]
    DoesNotEnd { pid: i32 },
    /// The pool itself could not start: said by its own process.
    #[error(transparent)]
    Pool(xenapi_sim::StartError),
    /// There is a pool's state that `--fresh` would remove.
    #[error("the simulated pool's VMs and disks were not removed")]
    NotConfirmed,
    /// It runs, so its state stays.
    #[error("the simulated pool runs, and keeps its VMs and disks")]
    Runs,
}

fn told(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!(": {complaint}") }
}

impl SimulatorError {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NameTaken => {
                Some(format!("if it is of no use any more, remove it: `bioxen pool remove {NAME}`"))
            }
            Self::File { path, .. } => {
                Some(format!("check that `{}` is yours to read and write", path.display()))
            }
            Self::Malformed { path, .. } => {
                Some(format!("end the process if there is one, and remove `{}`", path.display()))
            }
            Self::Ended { log, .. } | Self::NotReady { log, .. } => {
                Some(format!("see what it wrote to `{}`", log.display()))
            }
            Self::DoesNotEnd { pid } => Some(format!("see what keeps it: `ps -p {pid}`")),
            Self::Pool(error) => Some(error.hint()),
            Self::NotConfirmed => Some("answer `y`, or give `--yes`".into()),
            Self::Runs => Some("end it first: `bioxen sim stop`".into()),
            Self::Spawn(_) | Self::Signal { .. } => None,
        }
    }

    /// Whether it is the present state that is in the way.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::NameTaken | Self::Runs)
    }
}
