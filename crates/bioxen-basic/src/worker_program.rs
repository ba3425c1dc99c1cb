//! Which program is started to be the zygote.

use std::path::PathBuf;

use bioxen_core::backend::StartError;
use bioxen_worker::PROGRAM_NAME;

/// Lets this program be its own worker. Call it first in `main`: when the process was started to be
/// a worker it becomes one here, and never returns.
pub fn init() {
    bioxen_worker::become_worker_if_asked();
}

/// The program that workers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WorkerProgram {
    /// The first there is of: what `BIOXEN_WORKER` names, this program itself (if it called
    /// [`init`]), `bioxen-worker` beside this program, `bioxen-worker` on `PATH`.
    #[default]
    Find,
    /// This one.
    Path(PathBuf),
}

impl WorkerProgram {
    /// The program's path.
    pub fn locate(&self) -> Result<PathBuf, StartError> {
        if let Self::Path(path) = self {
            return Ok(path.clone());
        }
        if let Some(path) = std::env::var_os("BIOXEN_WORKER") {
            return Ok(path.into());
        }
        if bioxen_worker::can_be_worker() {
            // Stays the same program when its file is replaced meanwhile.
            return Ok("/proc/self/exe".into());
        }
        beside_this_program().or_else(|| which::which(PROGRAM_NAME).ok()).ok_or_else(|| {
            StartError::WorkerProgram {
                what: format!("`{PROGRAM_NAME}` is neither beside this program nor on PATH"),
                source: None,
            }
        })
    }
}

/// Beside the program, or a directory up, where Cargo puts programs of which this one is a test.
fn beside_this_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let directories = program.ancestors().skip(1).take(2);
    directories.map(|directory| directory.join(PROGRAM_NAME)).find(|path| path.is_file())
}
