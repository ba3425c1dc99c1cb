//! Who is alive: each controller holds a lock on a file of its own for as long as it lives.
//!
//! The system lets go of the lock however the process ends, so that no number has to be compared
//! with those of processes that came later. An id is never used twice: who is dead stays dead.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::StateError;
use crate::files;
use crate::state::State;

/// This process as one that sees to VMs; alive until this is dropped or the process ends.
#[derive(Debug)]
pub struct Controller {
    id: Uuid,
    path: PathBuf,
    // Holds the lock.
    _file: File,
}

impl Controller {
    /// Its id, which rows of its VMs carry.
    pub fn id(&self) -> Uuid {
        self.id
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // A file that stays is swept by the next controller.
        let _ = fs::remove_file(&self.path);
    }
}

impl State {
    /// Makes a controller, and sweeps away what dead ones left.
    pub fn controller(&self) -> Result<Controller, StateError> {
        let directory = self.controllers();
        let refused = |source| StateError::File { path: directory.clone(), source };
        files::directory(&directory).map_err(refused)?;
        sweep(&directory).map_err(refused)?;
        let id = Uuid::now_v7();
        let path = lock_path(&directory, id);
        let file = hold(&path).map_err(|source| StateError::File { path: path.clone(), source })?;
        Ok(Controller { id, path, _file: file })
    }

    /// Whether that controller is alive.
    pub fn is_alive(&self, id: Uuid) -> Result<bool, StateError> {
        let path = lock_path(&self.controllers(), id);
        is_held(&path).map_err(|source| StateError::File { path, source })
    }

    fn controllers(&self) -> PathBuf {
        self.directory().join("controllers")
    }
}

fn lock_path(directory: &Path, id: Uuid) -> PathBuf {
    directory.join(format!("{id}.lock"))
}

/// Makes a lock file and holds it.
fn hold(path: &Path) -> io::Result<File> {
    loop {
        let file = files::lock_file(path)?;
        // Somebody who looks whether it is held has it for a moment.
        file.lock()?;
        // Before it was held it may have been swept away as that of a dead one.
        if files::is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether somebody holds a lock file. Those who look do so side by side: they do not take one another
/// for its holder.
fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the lock files of dead controllers.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "lock") || is_held(&path)? {
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
