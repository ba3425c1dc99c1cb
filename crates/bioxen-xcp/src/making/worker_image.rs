//! Where our worker for guests comes from.

use std::io;
use std::path::{Path, PathBuf};

use crate::ssh::files::WorkerImage;

/// The variable that names it.
const VARIABLE: &str = "BIOXEN_GUEST_WORKER";

/// Its program, and the one that serves where that is not installed.
const PROGRAMS: [&str; 2] = ["bioxen-guest-worker", "bioxen-worker"];

/// Where our worker comes from that is copied into guests.
#[derive(Clone, Debug, Default)]
pub enum WorkerSource {
    /// The first there is of: what `BIOXEN_GUEST_WORKER` names, `bioxen-guest-worker` or `bioxen-worker` beside
    /// this program, this program itself if it can be a worker (it is several times larger).
    #[default]
    Find,
    /// This file.
    File(PathBuf),
    /// This program, in memory.
    Image(WorkerImage),
    /// None: guests run their own interpreter, and nothing holds Lua in but the guest itself.
    None,
}

/// There is no worker to copy.
#[derive(Debug, thiserror::Error)]
#[error("the worker for guests, `{}`, cannot be read", path.display())]
pub struct NoWorkerImage {
    /// Where it was looked for.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl NoWorkerImage {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        format!("build it with `cargo xtask guest-worker`, and name it in {VARIABLE}")
    }
}

impl WorkerSource {
    /// The same worker, in memory: a source that never reads it again.
    pub(crate) async fn read(&self) -> Result<Self, NoWorkerImage> {
        Ok(self.image().await?.map_or(Self::None, Self::Image))
    }

    /// Reads it; `None` where there is to be none.
    pub(crate) async fn image(&self) -> Result<Option<WorkerImage>, NoWorkerImage> {
        let path = match self {
            Self::None => return Ok(None),
            Self::Image(image) => return Ok(Some(image.clone())),
            Self::File(path) => path.clone(),
            Self::Find => find(),
        };
        match tokio::fs::read(&path).await {
            Ok(bytes) => Ok(Some(WorkerImage::new(bytes))),
            Err(source) => Err(NoWorkerImage { path, source }),
        }
    }
}

fn find() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return named.into();
    }
    let beside = std::env::current_exe().unwrap_or_default();
    // Tests and benchmarks lie one directory deeper than programs.
    let directories: Vec<&Path> = beside.ancestors().skip(1).take(2).collect();
    let places = PROGRAMS
        .iter()
        .flat_map(|program| directories.iter().map(move |directory| directory.join(program)));
    let mut places = places.peekable();
    let first = places.peek().cloned().unwrap_or_else(|| PROGRAMS[0].into());
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        if bioxen_worker::can_be_worker() { "/proc/self/exe".into() } else { first }
    })
}
