//! A pool's state on disk: one file of changes, read again at the next start.
//!
//! Each line is a change: the objects that it touched, as they were after it. Reading keeps each object's
//! latest form; a last line that was cut off is as if never written, so that a change is there as a whole
//! or not at all. At each start the file is written anew beside the old one and renamed over it, so that
//! it does not grow for ever.
//!
//! Whoever answers a call waits for [`Journal::flushed`] first. Waits that overlap share one flush.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::database::Database;
use crate::schema::{Schema, typed};
use crate::value::{Ref, Value};
use crate::wire::json;

/// The version of the file's format: from 2 on a line is a list of objects, not one of them.
const VERSION: u64 = 2;
/// Classes whose objects end with the process.
const PASSING: [&str; 3] = ["session", "task", "event"];

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "xenapi-sim")]
    version: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Change(Vec<Object>),
    /// As version 1 wrote it.
    Object(Object),
}

#[derive(Deserialize)]
struct Object {
    class: String,
    r#ref: String,
    fields: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A directory for a pool's state, which no other pool can open meanwhile.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    // Held for its lock.
    _lock: File,
}

impl StateDirectory {
    /// Opens the directory, which is made if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "another pool has it in use")
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn journal(&self) -> PathBuf {
        self.path.join("pool.jsonl")
    }

    /// Reads what an earlier run left into `db`; whether there was anything.
    pub(crate) fn restore(&self, db: &mut Database) -> io::Result<bool> {
        let file = match File::open(self.journal()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file).split(b'\n');
        let Some(first) = lines.next().transpose()? else { return Ok(false) };
        let header: Header = serde_json::from_slice(&first).map_err(io::Error::other)?;
        if header.version > VERSION {
            return Err(io::Error::other(format!(
                "the state is of version {}, and this program knows {VERSION}",
                header.version
            )));
        }
        let mut latest = HashMap::new();
        for line in lines {
            // Only the last line can be cut off, which may be in the middle of a character.
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else { break };
            let objects = match line {
                Line::Change(objects) => objects,
                Line::Object(object) => vec![object],
            };
            latest.extend(objects.into_iter().map(|object| (object.r#ref.clone(), object)));
        }
        for object in latest.into_values() {
            restore_object(db, object);
        }
        Ok(true)
    }
}

/// The file that changes are written to.
pub(crate) struct Journal {
    file: Arc<File>,
    /// How many changes were written.
    written: AtomicU64,
    /// How many of them are on the disk; locked while more are being brought there.
    flushed: Arc<tokio::sync::Mutex<u64>>,
    /// Why nothing can be written any more: what would follow a line that is half there, is lost.
    failure: Mutex<Option<String>>,
    _directory: StateDirectory,
}

impl Journal {
    /// Writes all of `db` anew, and takes changes from now on.
    pub(crate) fn start(directory: StateDirectory, db: &mut Database) -> io::Result<Self> {
        let fresh = directory.path.join("pool.jsonl.new");
        let mut file = File::create(&fresh)?;
        let mut out = format!("{{\"xenapi-sim\":{VERSION}}}\n").into_bytes();
        for (place, info) in Schema::get().classes.iter().enumerate() {
            for row in db.rows_at(place).filter(|_| !PASSING.contains(&info.name)) {
                write_change(&mut out, db, [(place, row.reference)]);
            }
        }
        file.write_all(&out)?;
        file.sync_all()?;
        std::fs::rename(&fresh, directory.journal())?;
        File::open(&directory.path)?.sync_all()?;
        db.touched = Some(Vec::new());
        Ok(Self {
            file: Arc::new(file),
            written: AtomicU64::new(0),
            flushed: Arc::default(),
            failure: Mutex::default(),
            _directory: directory,
        })
    }

    /// Writes down objects that changed, as one change. A failure is what [`Journal::flushed`] tells.
    pub(crate) fn record(&self, db: &Database, touched: Vec<(usize, Ref)>) {
        let classes = &Schema::get().classes;
        let mut seen = HashSet::new();
        let lasting = touched.into_iter().filter(|(class, reference)| {
            !PASSING.contains(&classes[*class].name) && seen.insert((*class, *reference))
        });
        let mut out = Vec::new();
        write_change(&mut out, db, lasting);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() || failure.is_some() {
            return;
        }
        if let Err(error) = (&*self.file).write_all(&out) {
            tracing::error!(%error, "the pool's state could not be written");
            *failure = Some(error.to_string());
        }
        // Counted when it is in the file, and before anybody can see the change: the database is locked.
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until all that was written before this call outlives the machine. What was once lost makes
    /// this fail for ever.
    pub(crate) async fn flushed(&self) -> Result<(), String> {
        let wanted = self.written.load(Ordering::SeqCst);
        let mut flushed = self.flushed.lock().await;
        if let Some(failure) = &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure.clone());
        }
        if *flushed >= wanted {
            return Ok(());
        }
        let reached = self.written.load(Ordering::SeqCst);
        let file = Arc::clone(&self.file);
        let done = match tokio::task::spawn_blocking(move || file.sync_data()).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &done {
            Ok(()) => *flushed = reached,
            Err(error) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(error.clone());
            }
        }
        done
    }
}

/// Writes these objects as one line; nothing where there are none.
fn write_change(out: &mut Vec<u8>, db: &Database, objects: impl IntoIterator<Item = (usize, Ref)>) {
    let start = out.len();
    for (class, reference) in objects {
        out.push(if out.len() == start { b'[' } else { b',' });
        write_object(out, db, class, reference);
    }
    if out.len() > start {
        out.extend_from_slice(b"]\n");
    }
}

fn write_object(out: &mut Vec<u8>, db: &Database, class: usize, reference: Ref) {
    let name = Schema::get().classes[class].name;
    out.extend_from_slice(
        format!("{{\"class\":\"{name}\",\"ref\":\"{reference}\",\"fields\":").as_bytes(),
    );
    match db.row_at(class, reference) {
        Ok(row) => json::write(out, &Value::Record(row.clone())),
        Err(_) => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn restore_object(db: &mut Database, object: Object) {
    let schema = Schema::get();
    let (Some(class), Some(reference), Some(fields)) =
        (schema.find_class(&object.class), Ref::parse(&object.r#ref), object.fields)
    else {
        return;
    };
    let infos = &schema.classes[class].fields;
    let values = infos.iter().map(|field| {
        let stored = fields.get(field.name).and_then(|raw| typed(field.kind, raw).ok());
        stored.unwrap_or_else(|| field.default.clone())
    });
    db.restore(class, reference, values.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(directory: &Path, db: &mut Database) -> Journal {
        Journal::start(StateDirectory::open(directory).unwrap(), db).unwrap()
    }

    fn restored(directory: &Path) -> Database {
        let mut db = Database::new(2);
        assert!(StateDirectory::open(directory).unwrap().restore(&mut db).unwrap());
        db
    }

    fn record(journal: &Journal, db: &mut Database) {
        let touched = db.touched.replace(Vec::new()).unwrap();
        journal.record(db, touched);
    }

    #[test]
    fn state_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut db = Database::new(1);
        let gone = db.insert("VM", vec![]);
        let journal = started(directory.path(), &mut db);
        let vm = db.insert("VM", vec![("name_label", "ä \"b\"".into()), ("order", 7.into())]);
        let vbd = db.insert("VBD", vec![("VM", vm.into())]);
        db.delete("VM", gone);
        record(&journal, &mut db);
        drop(journal);
        let again = restored(directory.path());
        let row = again.row("VM", vm).unwrap();
        assert_eq!((row.text("name_label"), row.int("order")), ("ä \"b\"", 7));
        assert_eq!(row.refs("VBDs"), [vbd]);
        assert_eq!(row.uuid(), db.row("VM", vm).unwrap().uuid());
        assert!(again.find("VM", gone).is_none());
    }

    #[test]
    fn wherever_the_file_ends_a_change_is_there_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let mut db = Database::new(1);
        let journal = started(directory.path(), &mut db);
        let path = directory.path().join("pool.jsonl");
        let before = std::fs::metadata(&path).unwrap().len();
        let vm = db.insert("VM", vec![("name_label", "größer".into())]);
        let vbd = db.insert("VBD", vec![("VM", vm.into())]);
        record(&journal, &mut db);
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let before = usize::try_from(before).unwrap();
        for length in before..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let db = restored(directory.path());
            // The newline at the end tells nothing that its line did not.
            let there = length + 1 >= whole.len();
            assert_eq!(db.find("VM", vm).is_some(), there, "{length} of {}", whole.len());
            assert_eq!(db.find("VBD", vbd).is_some(), there, "{length} of {}", whole.len());
        }
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let vm = Ref(uuid::Uuid::from_u128(7));
        let text = format!(
            "{{\"xenapi-sim\":1}}\n{{\"class\":\"VM\",\"ref\":\"{vm}\",\"fields\":{{\"name_label\":\"old\"}}}}\n"
        );
        std::fs::write(directory.path().join("pool.jsonl"), text).unwrap();
        assert_eq!(restored(directory.path()).row("VM", vm).unwrap().text("name_label"), "old");
    }

    #[test]
    fn a_directory_is_of_one_pool_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = StateDirectory::open(directory.path()).unwrap();
        let refused = StateDirectory::open(directory.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        drop(held);
        StateDirectory::open(directory.path()).unwrap();
    }

    #[tokio::test]
    async fn nothing_is_told_to_be_kept_when_the_file_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut db = Database::new(1);
        let mut journal = started(directory.path(), &mut db);
        db.insert("VM", vec![]);
        record(&journal, &mut db);
        assert_eq!(journal.flushed().await, Ok(()));
        // A file that is open for reading takes nothing.
        journal.file = Arc::new(File::open(directory.path().join("pool.jsonl")).unwrap());
        db.insert("VM", vec![]);
        record(&journal, &mut db);
        assert!(journal.flushed().await.is_err());
        assert!(journal.flushed().await.is_err(), "what was lost stays lost");
    }
}
