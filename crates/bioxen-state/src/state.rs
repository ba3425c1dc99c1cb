//! The database: opened, brought to the present form, and changed in transactions.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use uuid::Uuid;

use crate::error::StateError;
use crate::files;
use crate::schema::{MIGRATIONS, Migrated, migrate};

/// How long a call waits for another process to finish writing.
const PATIENCE: Duration = Duration::from_secs(20);

/// What outlives a command. May be opened by several processes, and several times by one.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    installation: Uuid,
    connection: Mutex<Connection>,
}

/// What ends the work in a transaction: an answer that is no, or the database.
pub(crate) enum Stopped {
    Refused(StateError),
    Failed(rusqlite::Error),
}

impl From<StateError> for Stopped {
    fn from(error: StateError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl State {
    /// Opens the state in a directory. What is not there is made, for its owner alone; what has an
    /// earlier form is brought to the present one.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StateError> {
        let directory = directory.into();
        let refuse = |path: &Path, source| StateError::File { path: path.to_owned(), source };
        files::directory(&directory).map_err(|source| refuse(&directory, source))?;
        // SQLite does not wait while a database gets its write-ahead log, so processes take turns.
        let lock = directory.join("state.lock");
        let held = files::lock_file(&lock).map_err(|source| refuse(&lock, source))?;
        held.lock().map_err(|source| refuse(&lock, source))?;
        let path = path_in(&directory);
        files::ensure_file(&path).map_err(|source| refuse(&path, source))?;
        let failed = |source| failure(&path, source);
        let mut connection = connect(&path).map_err(failed)?;
        if let Migrated::Newer(found) = migrate(&mut connection, &MIGRATIONS).map_err(failed)? {
            let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
            return Err(StateError::Newer { path, found, known });
        }
        let installation = connection
            .query_row("SELECT id FROM installation", [], |row| row.get(0))
            .map(Uuid::from_bytes)
            .map_err(failed)?;
        Ok(Self { directory, installation, connection: Mutex::new(connection) })
    }

    /// Which installation of BioXen this is: the owner of what it creates on pools. Made once, at
    /// random, and the same from then on.
    pub fn installation(&self) -> Uuid {
        self.installation
    }

    /// Where the state is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads what is there.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Stopped>,
    ) -> Result<T, StateError> {
        work(&self.connection()).map_err(|stopped| self.error(stopped))
    }

    /// Changes what is there, as a whole or not at all. No other process changes anything meanwhile.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Stopped>,
    ) -> Result<T, StateError> {
        let mut connection = self.connection();
        let outcome = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Stopped::from)
            .and_then(|transaction| {
                let result = work(&transaction)?;
                transaction.commit()?;
                Ok(result)
            });
        outcome.map_err(|stopped| self.error(stopped))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // Whoever panicked has left no transaction open: it ended as it was unwound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, stopped: Stopped) -> StateError {
        match stopped {
            Stopped::Refused(error) => error,
            Stopped::Failed(source) => failure(&path_in(&self.directory), source),
        }
    }
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join("state.db")
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // A file system without shared memory keeps the rollback journal, which is as safe and slower.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn failure(path: &Path, source: rusqlite::Error) -> StateError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StateError::Busy { path },
        _ => StateError::Database { path, source },
    }
}
