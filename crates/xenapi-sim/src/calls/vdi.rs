//! Virtual disks.

use super::{Call, Handler, Outcome, later, sr};
use crate::database::{Database, Row};
use crate::dispatch::construct;
use crate::error::{ApiError, error};
use crate::lifecycle;
use crate::store::DiskId;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "create" => later!(create),
        "introduce" => Handler::Now(introduce),
        "destroy" => later!(destroy),
        "forget" => Handler::Now(forget_call),
        "clone" => later!(clone),
        "copy" => later!(copy),
        "snapshot" => later!(snapshot),
        "resize" => later!(resize),
        "resize_online" => later!(resize_online),
        "pool_migrate" => later!(pool_migrate),
        "update" => Handler::Now(|_| Ok(Value::Void)),
        "data_destroy" => later!(data_destroy),
        "get_nbd_info" => Handler::Now(|_| Ok(Value::set(Vec::new()))),
        "enable_cbt" => Handler::Now(|call| set_flag(call, true)),
        "disable_cbt" => Handler::Now(|call| set_flag(call, false)),
        _ => return None,
    })
}

/// The step in which back ends make disks larger.
const STEP: i64 = 2 << 20;
/// The largest disk.
const LARGEST: i64 = 2040 << 30;

fn rounded(size: i64) -> i64 {
    size.max(1).saturating_add(STEP - 1) / STEP * STEP
}

/// How much a disk of this size takes up where disks are allocated whole, or only as they are written.
fn taken(sr: &Row, size: i64) -> i64 {
    if sr::is_thick(sr) { size } else { size.min(STEP) }
}

/// A disk with these fields, where the storage has room for it.
pub(crate) fn insert(
    db: &mut Database,
    mut fields: Vec<(&'static str, Value)>,
) -> Result<Ref, ApiError> {
    let field =
        |name: &str| fields.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone());
    let sr = field("SR").map(|value| value.as_ref()).unwrap_or_default();
    let asked = field("virtual_size").map(|value| value.as_int()).unwrap_or_default();
    let row = db.row("SR", sr)?.clone();
    if row.refs("PBDs").is_empty() {
        return Err(error("SR_HAS_NO_PBDS", [sr]));
    }
    if row.text("content_type") == "iso" {
        return Err(error("SR_OPERATION_NOT_SUPPORTED", [sr]));
    }
    if asked > LARGEST {
        let text = "the disk is larger than this kind of storage can hold";
        return Err(error("SR_BACKEND_FAILURE_79", ["", text, ""]));
    }
    if asked < 0 {
        return Err(error("INVALID_VALUE", ["virtual_size", &asked.to_string()]));
    }
    let size = rounded(asked);
    let used = taken(&row, size);
    sr::check_space(db, sr, used)?;
    fields.retain(|(name, _)| !["virtual_size", "physical_utilisation"].contains(name));
    let uuid = db.random.uuid();
    let named = |fields: &[(&str, Value)], name: &str| fields.iter().any(|(it, _)| *it == name);
    for (name, value) in [
        ("virtual_size", size.into()),
        ("physical_utilisation", used.into()),
        ("location", uuid.hyphenated().to_string().into()),
        ("uuid", Value::Uuid(uuid)),
        ("managed", true.into()),
        ("type", "user".into()),
    ] {
        if !named(&fields, name) {
            fields.push((name, value));
        }
    }
    let vdi = db.insert("VDI", fields);
    sr::account(db, sr, used, size);
    lifecycle::refresh_vdi(db, vdi);
    Ok(vdi)
}

async fn create(call: Call) -> Outcome {
    let fields = construct("VDI", &call.args[0])?;
    call.take_time().await?;
    let (vdi, disk, size) = {
        let mut db = call.inner.write();
        let vdi = insert(&mut db, fields)?;
        let row = db.row("VDI", vdi)?;
        (vdi, DiskId(row.uuid()), u64::try_from(row.int("virtual_size")).unwrap_or_default())
    };
    match call.on_disks(move |store| store.create(disk, size)).await {
        Ok(()) => Ok(vdi.into()),
        Err(error) => {
            forget(&mut call.inner.write(), vdi);
            Err(error)
        }
    }
}

fn introduce(call: &Call) -> Outcome {
    let names = [
        "uuid",
        "name_label",
        "name_description",
        "SR",
        "type",
        "sharable",
        "read_only",
        "other_config",
        "location",
        "xenstore_data",
        "sm_config",
        "managed",
        "virtual_size",
        "physical_utilisation",
        "metadata_of_pool",
        "is_a_snapshot",
        "snapshot_time",
        "snapshot_of",
    ];
    let mut db = call.inner.write();
    let sr = call.reference(3)?;
    db.row("SR", sr)?;
    let vdi = db.insert("VDI", names.into_iter().zip(call.args.iter().cloned()).collect());
    let row = db.row("VDI", vdi)?.clone();
    sr::account(&mut db, sr, row.int("physical_utilisation"), row.int("virtual_size"));
    lifecycle::refresh_vdi(&mut db, vdi);
    Ok(vdi.into())
}

fn check_free(db: &Database, vdi: &Row, operation: &str) -> Result<(), ApiError> {
    if lifecycle::in_use(db, vdi) {
        return Err(error("VDI_IN_USE", [&vdi.reference.to_string(), operation]));
    }
    Ok(())
}

async fn destroy(call: Call) -> Outcome {
    let vdi = call.subject()?;
    check_free(&call.inner.read(), call.inner.read().row("VDI", vdi)?, "destroy")?;
    call.take_time().await?;
    {
        let db = call.inner.read();
        check_free(&db, db.row("VDI", vdi)?, "destroy")?;
    }
    remove(&call, vdi).await?;
    Ok(Value::Void)
}

fn forget_call(call: &Call) -> Outcome {
    let mut db = call.inner.write();
    let vdi = call.subject()?;
    check_free(&db, db.row("VDI", vdi)?, "forget")?;
    forget(&mut db, vdi);
    Ok(Value::Void)
}

/// Removes a disk's rows: it, and the drives that it was in.
pub(crate) fn forget(db: &mut Database, vdi: Ref) {
    let Some(row) = db.find("VDI", vdi).cloned() else { return };
    for vbd in row.refs("VBDs") {
        let cd = db.find("VBD", vbd).is_some_and(|row| row.text("type") == "CD");
        if cd {
            db.set("VBD", vbd, "VDI", Ref::NULL);
            db.set("VBD", vbd, "empty", true);
        } else {
            db.delete("VBD", vbd);
        }
    }
    sr::account(
        db,
        row.reference("SR"),
        -row.int("physical_utilisation"),
        -row.int("virtual_size"),
    );
    db.delete("VDI", vdi);
}

/// Removes a disk with its bytes, if there is one.
pub(super) async fn remove(call: &Call, vdi: Ref) -> Result<(), ApiError> {
    let disk = {
        let mut db = call.inner.write();
        let Some(disk) = db.find("VDI", vdi).map(|row| DiskId(row.uuid())) else { return Ok(()) };
        forget(&mut db, vdi);
        disk
    };
    call.on_disks(move |store| store.destroy(disk)).await
}

/// Fields that a copy does not take over.
const OWN: &[&str] = &[
    "uuid",
    "location",
    "VBDs",
    "SR",
    "snapshots",
    "crash_dumps",
    "current_operations",
    "allowed_operations",
    "is_a_snapshot",
    "snapshot_of",
    "snapshot_time",
    "parent",
    "physical_utilisation",
    "cbt_enabled",
];

/// The row of a copy of this disk on this storage; the bytes are for the caller to copy.
pub(super) fn clone_row(db: &mut Database, vdi: &Row, sr: Ref) -> Result<Ref, ApiError> {
    let mut fields = vdi.members();
    fields.retain(|(name, _)| !OWN.contains(name));
    fields.push(("SR", sr.into()));
    insert(db, fields)
}

/// The row of a snapshot of this disk.
pub(super) fn snapshot_row(db: &mut Database, vdi: &Row, now: i64) -> Result<Ref, ApiError> {
    let mut fields = vdi.members();
    fields.retain(|(name, _)| !OWN.contains(name));
    fields.push(("SR", vdi.reference("SR").into()));
    fields.push(("is_a_snapshot", true.into()));
    fields.push(("snapshot_of", vdi.reference.into()));
    fields.push(("snapshot_time", Value::Time(now)));
    insert(db, fields)
}

async fn clone(call: Call) -> Outcome {
    let vdi = call.subject()?;
    copy_with(&call, |db| {
        let row = db.row("VDI", vdi)?.clone();
        let sr = row.reference("SR");
        clone_row(db, &row, sr).map(|copy| (row.uuid(), copy))
    })
    .await
}

async fn snapshot(call: Call) -> Outcome {
    let (vdi, now) = (call.subject()?, call.inner.clock.now());
    copy_with(&call, |db| {
        let row = db.row("VDI", vdi)?.clone();
        snapshot_row(db, &row, now).map(|copy| (row.uuid(), copy))
    })
    .await
}

async fn copy(call: Call) -> Outcome {
    let (vdi, sr, into) = (call.subject()?, call.reference(1)?, call.reference(3)?);
    if !into.is_null() {
        let pair = {
            let db = call.inner.read();
            (DiskId(db.row("VDI", vdi)?.uuid()), DiskId(db.row("VDI", into)?.uuid()))
        };
        call.take_time().await?;
        call.on_disks(move |store| {
            store.destroy(pair.1)?;
            store.clone_disk(pair.0, pair.1)
        })
        .await?;
        return Ok(into.into());
    }
    copy_with(&call, |db| {
        let row = db.row("VDI", vdi)?.clone();
        check_free(db, &row, "copy")?;
        let sr = if sr.is_null() { row.reference("SR") } else { sr };
        clone_row(db, &row, sr).map(|copy| (row.uuid(), copy))
    })
    .await
}

async fn copy_with(
    call: &Call,
    make: impl FnOnce(&mut Database) -> Result<(uuid::Uuid, Ref), ApiError>,
) -> Outcome {
    let (from, copy, to) = {
        let mut db = call.inner.write();
        let (from, copy) = make(&mut db)?;
        (DiskId(from), copy, DiskId(db.row("VDI", copy)?.uuid()))
    };
    let copied = match call.on_disks(move |store| store.clone_disk(from, to)).await {
        Ok(()) => call.take_time().await,
        Err(error) => Err(error),
    };
    match copied {
        Ok(()) => Ok(copy.into()),
        Err(error) => {
            remove(call, copy).await?;
            Err(error)
        }
    }
}

async fn resize(call: Call) -> Outcome {
    {
        let db = call.inner.read();
        let row = db.row("VDI", call.subject()?)?;
        let thick = db.find("SR", row.reference("SR")).is_some_and(|sr| sr::is_thick(sr));
        if thick {
            check_free(&db, row, "resize")?;
        }
    }
    resize_to(&call).await
}

async fn resize_online(call: Call) -> Outcome {
    resize_to(&call).await
}

async fn resize_to(call: &Call) -> Outcome {
    let (vdi, asked) = (call.subject()?, call.int(1));
    call.take_time().await?;
    let (disk, size) = {
        let mut db = call.inner.write();
        let row = db.row("VDI", vdi)?.clone();
        let size = rounded(asked);
        let before = row.int("virtual_size");
        if size < before {
            let text = "a disk cannot be made smaller";
            return Err(error("SR_BACKEND_FAILURE_79", ["", text, ""]));
        }
        if size > LARGEST {
            let text = "the disk would be larger than this kind of storage can hold";
            return Err(error("SR_BACKEND_FAILURE_79", ["", text, ""]));
        }
        let sr = row.reference("SR");
        let storage = db.row("SR", sr)?.clone();
        let used = if sr::is_thick(&storage) { size - before } else { 0 };
        sr::check_space(&db, sr, used)?;
        db.set("VDI", vdi, "virtual_size", size);
        db.set("VDI", vdi, "physical_utilisation", row.int("physical_utilisation") + used);
        sr::account(&mut db, sr, used, size - before);
        (DiskId(row.uuid()), u64::try_from(size).unwrap_or_default())
    };
    call.on_disks(move |store| store.resize(disk, size)).await?;
    Ok(Value::Void)
}

/// Moves a disk to another storage; it keeps its reference and its uuid.
pub(super) fn move_to(db: &mut Database, vdi: Ref, sr: Ref) -> Result<(), ApiError> {
    let row = db.row("VDI", vdi)?.clone();
    let before = row.reference("SR");
    if before == sr {
        return Ok(());
    }
    let target = db.row("SR", sr)?.clone();
    let size = row.int("virtual_size");
    let used = taken(&target, size);
    sr::check_space(db, sr, used)?;
    sr::account(db, before, -row.int("physical_utilisation"), -size);
    sr::account(db, sr, used, size);
    db.set("VDI", vdi, "SR", sr);
    db.set("VDI", vdi, "physical_utilisation", used);
    Ok(())
}

async fn pool_migrate(call: Call) -> Outcome {
    let (vdi, sr) = (call.subject()?, call.reference(1)?);
    call.inner.read().row("VDI", vdi)?;
    call.take_time().await?;
    move_to(&mut call.inner.write(), vdi, sr)?;
    Ok(vdi.into())
}

async fn data_destroy(call: Call) -> Outcome {
    let vdi = call.subject()?;
    let disk = {
        let mut db = call.inner.write();
        let row = db.row("VDI", vdi)?.clone();
        check_free(&db, &row, "data_destroy")?;
        db.set("VDI", vdi, "type", "cbt_metadata");
        DiskId(row.uuid())
    };
    call.on_disks(move |store| store.destroy(disk)).await?;
    Ok(Value::Void)
}

fn set_flag(call: &Call, on: bool) -> Outcome {
    let vdi = call.subject()?;
    let mut db = call.inner.write();
    db.row("VDI", vdi)?;
    db.set("VDI", vdi, "cbt_enabled", on);
    Ok(Value::Void)
}
