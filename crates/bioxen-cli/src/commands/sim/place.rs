//! Where the simulated pool is kept, and whether it runs.
//!
//! ```text
//! <state>/sim/control    locked while a command looks at the pool or changes it
//! <state>/sim/lock       locked by the pool's process for as long as it lives
//! <state>/sim/pool.json  what there is to know of the running pool; left by one that crashed
//! <state>/sim/password   the password of `root`
//! <state>/sim/log        what the process had to say
//! <state>/sim/pool/      VMs, disks and the certificate
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bioxen_xcp::SecretReference;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Guests, SimulatorError};
use crate::directories::Directories;
use crate::failure::Failure;

/// The version of `pool.json`'s form.
const VERSION: u32 = 1;

/// What there is to know of a pool that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) pid: i32,
    pub(super) urls: Vec<String>,
    pub(super) fingerprint: String,
    pub(super) since: Timestamp,
    pub(super) guests: Guests,
}

/// The same, as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    version: u32,
    #[serde(flatten)]
    served: S,
}

impl Served {
    /// A pool of this process.
    pub(super) fn new(urls: Vec<String>, fingerprint: String, guests: Guests) -> Self {
        let pid = i32::try_from(std::process::id()).expect("process numbers are below 2^22");
        Self { pid, urls, fingerprint, since: Timestamp::now(), guests }
    }
}

/// How things are with the simulated pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Running(Served),
    /// Its process ended without having been told to.
    Crashed(Served),
    /// There is none.
    Stopped,
}

/// The directory of the simulated pool.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    // Held: one command at a time.
    _control: File,
}

impl Place {
    /// Opens this user's, which is made if need be; waits for another command that is at work on it.
    pub(super) fn open() -> Result<Self, Failure> {
        let directories = Directories::from_environment().ok_or(Failure::NoHome)?;
        let directory = directories.state.join("sim");
        make_private(&directory).map_err(file("make", &directory))?;
        let path = directory.join("control");
        let control = open_lock(&path)?;
        control.lock().map_err(file("lock", &path))?;
        Ok(Self { directory, _control: control })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub(super) fn pool(&self) -> PathBuf {
        self.directory.join("pool")
    }

    /// Where it stands what there is to know of the running pool.
    pub(super) fn told(&self) -> PathBuf {
        told(&self.directory)
    }

    /// Where the configuration says that the password is.
    pub(super) fn password_reference(&self) -> SecretReference {
        SecretReference::File(password_path(&self.directory))
    }

    /// Makes up a password where there is none yet.
    pub(super) fn make_password(&self) -> Result<(), SimulatorError> {
        let path = password_path(&self.directory);
        if path.exists() {
            return Ok(());
        }
        let random = Path::new("/dev/urandom");
        let mut bytes = [0; 16];
        File::open(random)
            .and_then(|mut source| source.read_exact(&mut bytes))
            .map_err(file("read", random))?;
        let digits = format!("{:032x}", u128::from_be_bytes(bytes));
        replace(&path, digits.as_bytes()).map_err(file("write", &path))
    }

    /// Whether it runs.
    pub(super) fn state(&self) -> Result<State, SimulatorError> {
        let path = lock_path(&self.directory);
        let runs = match open_lock(&path)?.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(file("lock", &path)(error)),
        };
        let told = self.told();
        let text = match fs::read_to_string(&told) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !runs => {
                return Ok(State::Stopped);
            }
            Err(error) => return Err(file("read", &told)(error)),
        };
        let malformed = |reason| SimulatorError::Malformed { path: told.clone(), reason };
        let Stored { version, served } = serde_json::from_str::<Stored<Served>>(&text)
            .map_err(|error| malformed(error.to_string()))?;
        if version > VERSION {
            return Err(malformed(format!("it has the form {version}")));
        }
        Ok(if runs { State::Running(served) } else { State::Crashed(served) })
    }

    /// The end of the pool's process, to be waited for.
    pub(super) fn end(&self) -> End {
        End { lock: lock_path(&self.directory) }
    }

    /// Forgets what was told of a pool that does not run any more.
    pub(super) fn forget(&self) -> Result<(), SimulatorError> {
        let told = self.told();
        match fs::remove_file(&told) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &told)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the pool's VMs and disks.
    pub(super) fn remove_pool(&self) -> Result<(), SimulatorError> {
        let pool = self.pool();
        match fs::remove_dir_all(&pool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &pool)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The end of the pool's process.
#[derive(Debug)]
pub(super) struct End {
    lock: PathBuf,
}

impl End {
    /// Waits for it, for as long as it takes.
    pub(super) fn wait(&self) -> Result<(), SimulatorError> {
        open_lock(&self.lock)?.lock_shared().map_err(file("lock", &self.lock))
    }
}

/// What the pool's own process has of its place.
#[derive(Debug)]
pub(super) struct Held {
    directory: PathBuf,
    // Held for its lock.
    _lock: File,
}

impl Held {
    /// Takes the place for this process.
    pub(super) fn take(directory: &Path) -> Result<Self, SimulatorError> {
        let path = lock_path(directory);
        let lock = open_lock(&path)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SimulatorError::Runs,
            TryLockError::Error(error) => file("lock", &path)(error),
        })?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    pub(super) fn pool(&self) -> PathBuf {
        self.directory.join("pool")
    }

    pub(super) fn password(&self) -> Result<String, SimulatorError> {
        let path = password_path(&self.directory);
        fs::read_to_string(&path).map_err(file("read", &path))
    }

    /// Tells what there is to know of the pool.
    pub(super) fn tell(&self, served: &Served) -> Result<(), SimulatorError> {
        let path = told(&self.directory);
        let text = serde_json::to_vec(&Stored { version: VERSION, served })
            .expect("it has text keys and no failing values");
        replace(&path, &text).map_err(file("write", &path))
    }
}

fn told(directory: &Path) -> PathBuf {
    directory.join("pool.json")
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join("lock")
}

fn password_path(directory: &Path) -> PathBuf {
    directory.join("password")
}

fn open_lock(path: &Path) -> Result<File, SimulatorError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(file("open", path))
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Puts a file in place as a whole, for its owner's eyes.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SimulatorError {
    move |source| SimulatorError::File { action, path: path.to_owned(), source }
}

impl From<SimulatorError> for Failure {
    fn from(error: SimulatorError) -> Self {
        Self::Simulator(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> Place {
        let control = open_lock(&directory.join("control")).unwrap();
        Place { directory: directory.to_owned(), _control: control }
    }

    #[test]
    fn a_pool_runs_for_as_long_as_its_process_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        assert_eq!(place.state().unwrap(), State::Stopped);
        let held = Held::take(directory.path()).unwrap();
        let served = Served::new(vec!["https://127.0.0.1:1".into()], "ab".into(), Guests::None);
        held.tell(&served).unwrap();
        assert_eq!(place.state().unwrap(), State::Running(served.clone()));
        assert!(matches!(Held::take(directory.path()), Err(SimulatorError::Runs)));
        drop(held);
        assert_eq!(place.state().unwrap(), State::Crashed(served));
        place.forget().unwrap();
        place.forget().unwrap();
        assert_eq!(place.state().unwrap(), State::Stopped);
    }

    #[test]
    fn what_a_newer_program_told_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let served = Served::new(Vec::new(), String::new(), Guests::None);
        let text = serde_json::to_string(&Stored { version: VERSION + 1, served }).unwrap();
        fs::write(told(directory.path()), text).unwrap();
        let refused = place(directory.path()).state().unwrap_err().to_string();
        assert!(refused.contains("it has the form 2"), "{refused}");
    }

    #[test]
    fn a_password_is_made_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        place.make_password().unwrap();
        let path = directory.path().join("password");
        let password = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        place.make_password().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), password.len()), (password.clone(), 32));
    }
}
