//! The tables, and how a database of an earlier form becomes one of the present form.

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

/// Each brings a database one form further. One that was released is never changed.
pub(crate) const MIGRATIONS: [&str; 2] = [FORM_1, FORM_2];

/// What became of a database that was to have the newest form.
pub(crate) enum Migrated {
    Done,
    /// It has a form that is newer than the newest known.
    Newer(u32),
}

const FORM_1: &str = "
CREATE TABLE installation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  BLOB NOT NULL CHECK (length(id) = 16)
) STRICT;

-- Times are microseconds since 1970, sizes are bytes.
CREATE TABLE vms (
    name          TEXT PRIMARY KEY,
    pool          TEXT NOT NULL,
    pool_uuid     TEXT NOT NULL,
    uuid          TEXT,
    making_label  TEXT UNIQUE,
    template_name TEXT,
    template_uuid TEXT,
    adopted       INTEGER NOT NULL CHECK (adopted IN (0, 1)),
    phase         TEXT NOT NULL CHECK (phase IN ('making', 'ready', 'deleting')),
    controller    BLOB CHECK (length(controller) = 16),
    created       INTEGER NOT NULL,
    expires       INTEGER,
    address       TEXT,
    address_by    TEXT CHECK (address_by IN ('guest_metrics', 'static', 'call_home')),
    ssh_user      TEXT,
    ssh_port      INTEGER NOT NULL CHECK (ssh_port BETWEEN 1 AND 65535),
    host_key      TEXT,
    client_key    TEXT,
    seed_digest   TEXT,
    memory        INTEGER,
    vcpus         INTEGER,
    disk          INTEGER,
    spec          TEXT NOT NULL CHECK (json_valid(spec)),
    last_verdict  TEXT,
    CHECK (phase != 'ready' OR uuid IS NOT NULL),
    CHECK ((address IS NULL) = (address_by IS NULL)),
    CHECK (adopted = 0 OR (uuid IS NOT NULL AND phase != 'deleting')),
    CHECK ((adopted = 1) = (making_label IS NULL)),
    CHECK ((adopted = 1) = (template_name IS NULL)),
    CHECK ((adopted = 1) = (template_uuid IS NULL)),
    UNIQUE (pool_uuid, uuid)
) STRICT;

CREATE TABLE leases (
    pool    TEXT NOT NULL,
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    vm      TEXT NOT NULL REFERENCES vms (name) ON DELETE CASCADE,
    PRIMARY KEY (pool, network, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX leases_of_vm ON leases (vm);
";

/// Addresses of VMs that are not to outlive their controller, and so are not remembered.
const FORM_2: &str = "
CREATE TABLE held_addresses (
    pool       TEXT NOT NULL,
    network    TEXT NOT NULL,
    address    TEXT NOT NULL,
    controller BLOB NOT NULL CHECK (length(controller) = 16),
    PRIMARY KEY (pool, network, address)
) STRICT, WITHOUT ROWID;
";

/// Brings a database to the form after the last of `migrations`, as a whole or not at all.
pub(crate) fn migrate(
    connection: &mut Connection,
    migrations: &[&str],
) -> Result<Migrated, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let Some(steps) = migrations.get(found as usize..) else {
        return Ok(Migrated::Newer(found));
    };
    if !steps.is_empty() {
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", migrations.len())?;
        transaction.execute(
            "INSERT OR IGNORE INTO installation (one, id) VALUES (1, ?1)",
            [Uuid::now_v7().as_bytes()],
        )?;
    }
    transaction.commit()?;
    Ok(Migrated::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "CREATE TABLE next (one INTEGER) STRICT;";

    fn form(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    fn installation(connection: &Connection) -> [u8; 16] {
        connection.query_row("SELECT id FROM installation", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_earlier_form_is_brought_forward_and_keeps_what_it_holds() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &MIGRATIONS).unwrap();
        let id = installation(&connection);
        let newer: Vec<&str> = MIGRATIONS.into_iter().chain([NEXT]).collect();
        assert!(matches!(migrate(&mut connection, &newer), Ok(Migrated::Done)));
        assert_eq!((form(&connection) as usize, installation(&connection)), (newer.len(), id));
        let found = migrate(&mut connection, &MIGRATIONS);
        assert!(matches!(found, Ok(Migrated::Newer(found)) if found as usize == newer.len()));
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &MIGRATIONS).unwrap();
        let broken: Vec<&str> = MIGRATIONS.into_iter().chain([NEXT, "CREATE nonsense"]).collect();
        assert!(migrate(&mut connection, &broken).is_err());
        assert_eq!(form(&connection) as usize, MIGRATIONS.len());
        assert!(!connection.table_exists(None, "next").unwrap());
    }
}
