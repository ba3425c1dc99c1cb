//! A pool's state on disk: one file of changes, read again at the next start.
//!
//! Each line is an object as it was after a change. Reading keeps each object's latest line; a last
//! line that was cut off is as if never written. At each start the file is written anew beside the
//! old one and renamed over it, so that it does not grow for ever.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::database::Database;
use crate::schema::{Schema, typed};
use crate::value::{Ref, Value};
use crate::wire::json;

/// The version of the file's format.
const VERSION: u64 = 1;
/// Classes whose objects end with the process.
const PASSING: [&str; 3] = ["session", "task", "event"];

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "xenapi-sim")]
    version: u64,
}

#[derive(Deserialize)]
struct Line {
    class: String,
    r#ref: String,
    fields: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The file that changes are written to.
pub(crate) struct Journal {
    file: File,
}

fn path(directory: &Path) -> PathBuf {
    directory.join("pool.jsonl")
}

impl Journal {
    /// Reads what an earlier run left into `db`; whether there was anything.
    pub(crate) fn restore(directory: &Path, db: &mut Database) -> io::Result<bool> {
        let file = match File::open(path(directory)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(false) };
        let header: Header = serde_json::from_str(&first).map_err(io::Error::other)?;
        if header.version > VERSION {
            return Err(io::Error::other(format!(
                "the state is of version {}, and this program knows {VERSION}",
                header.version
            )));
        }
        let mut latest = HashMap::new();
        for line in lines {
            // Only the last line can be cut off.
            let Ok(line) = serde_json::from_str::<Line>(&line?) else { break };
            latest.insert(line.r#ref.clone(), line);
        }
        for line in latest.into_values() {
            restore_line(db, line);
        }
        Ok(true)
    }

    /// Writes all of `db` anew, and takes changes from now on.
    pub(crate) fn start(directory: &Path, db: &mut Database) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let fresh = directory.join("pool.jsonl.new");
        let mut file = File::create(&fresh)?;
        let mut out = format!("{{\"xenapi-sim\":{VERSION}}}\n").into_bytes();
        for (place, info) in Schema::get().classes.iter().enumerate() {
            for row in db.rows_at(place).filter(|_| !PASSING.contains(&info.name)) {
                write_line(&mut out, db, place, row.reference);
            }
        }
        file.write_all(&out)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path(directory))?;
        db.touched = Some(Vec::new());
        Ok(Self { file })
    }

    /// Writes down objects that changed.
    pub(crate) fn record(&mut self, db: &Database, touched: Vec<(usize, Ref)>) {
        let classes = &Schema::get().classes;
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for (class, reference) in touched {
            if !PASSING.contains(&classes[class].name) && seen.insert((class, reference)) {
                write_line(&mut out, db, class, reference);
            }
        }
        if let Err(error) = self.file.write_all(&out) {
            tracing::error!(%error, "the pool's state could not be written");
        }
    }
}

fn write_line(out: &mut Vec<u8>, db: &Database, class: usize, reference: Ref) {
    let name = Schema::get().classes[class].name;
    out.extend_from_slice(
        format!("{{\"class\":\"{name}\",\"ref\":\"{reference}\",\"fields\":").as_bytes(),
    );
    match db.row_at(class, reference) {
        Ok(row) => json::write(out, &Value::Record(row.clone())),
        Err(_) => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}\n");
}

fn restore_line(db: &mut Database, line: Line) {
    let schema = Schema::get();
    let (Some(class), Some(reference), Some(fields)) =
        (schema.find_class(&line.class), Ref::parse(&line.r#ref), line.fields)
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

    #[test]
    fn state_is_read_as_it_was_written_and_a_cut_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut db = Database::new(1);
        let gone = db.insert("VM", vec![]);
        let mut journal = Journal::start(directory.path(), &mut db).unwrap();
        let vm = db.insert("VM", vec![("name_label", "ä \"b\"".into()), ("order", 7.into())]);
        let vbd = db.insert("VBD", vec![("VM", vm.into())]);
        db.delete("VM", gone);
        let touched = db.touched.replace(Vec::new()).unwrap();
        journal.record(&db, touched);
        journal.file.write_all(b"{\"class\":\"VM\",\"ref\":\"Opaq").unwrap();
        let mut again = Database::new(2);
        assert!(Journal::restore(directory.path(), &mut again).unwrap());
        let row = again.row("VM", vm).unwrap();
        assert_eq!((row.text("name_label"), row.int("order")), ("ä \"b\"", 7));
        assert_eq!(row.refs("VBDs"), [vbd]);
        assert_eq!(row.uuid(), db.row("VM", vm).unwrap().uuid());
        assert!(again.find("VM", gone).is_none());
    }
}
