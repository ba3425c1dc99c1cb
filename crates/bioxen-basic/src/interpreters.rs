//! Interpreters that are programs of their own: where they are, and what they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use bioxen_core::backend::StartError;

/// Names under which interpreters are installed.
const NAMES: [&str; 6] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit", "lua"];

/// An interpreter of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundInterpreter {
    /// What to call it: `embedded`, `lua5.1`, `luajit`, …
    pub name: String,
    /// What it says of itself: `Lua 5.1.5`.
    pub version: String,
    /// Where it is; `None` for the built-in one.
    pub program: Option<PathBuf>,
}

/// The interpreters on `PATH`, each asked for its version.
pub fn find() -> Vec<FoundInterpreter> {
    NAMES.into_iter().filter_map(find_one).collect()
}

fn find_one(name: &str) -> Option<FoundInterpreter> {
    let (program, version) = probe(Path::new(name)).ok()?;
    Some(FoundInterpreter { name: name.to_owned(), version, program: Some(program) })
}

type Probed = HashMap<(PathBuf, Option<SystemTime>), String>;

static PROBED: Mutex<Option<Probed>> = Mutex::new(None);

/// The full path and the version of an interpreter, asked once for each state of its file.
pub(crate) fn probe(program: &Path) -> Result<(PathBuf, String), StartError> {
    let refuse =
        |reason: String| StartError::Interpreter { program: program.display().to_string(), reason };
    let found = which::which(program).map_err(|_| refuse("there is no such program".into()))?;
    let path = found.canonicalize().map_err(|error| refuse(error.to_string()))?;
    let changed = path.metadata().and_then(|metadata| metadata.modified()).ok();
    let key = (path.clone(), changed);
    let known = |probed: &Option<Probed>| probed.as_ref().and_then(|map| map.get(&key).cloned());
    let mut probed = PROBED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(version) = known(&probed) {
        return Ok((path, version));
    }
    let version = bioxen_worker::ask_version(&path).map_err(refuse)?;
    probed.get_or_insert_default().insert(key, version.clone());
    Ok((path, version))
}
