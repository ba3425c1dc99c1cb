//! Where a VM could run.

use crate::calls::{Call, Handler, Outcome};
use crate::error::{ApiError, error};
use crate::placement;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "assert_can_boot_here" => assert_can_boot_here,
        "get_possible_hosts" => |call| {
            let db = call.inner.read();
            Ok(Value::refs(placement::possible_hosts(&db, db.row("VM", call.subject()?)?)))
        },
        "retrieve_wlb_recommendations" => recommendations,
        "assert_agile" => assert_agile,
        "assert_can_migrate" => assert_can_migrate,
        _ => return None,
    }))
}

fn assert_can_boot_here(call: &Call) -> Outcome {
    let db = call.inner.read();
    let (vm, host) = (db.row("VM", call.subject()?)?, db.row("host", call.reference(1)?)?);
    placement::can_boot(&db, vm, host)?;
    Ok(Value::Void)
}

fn recommendations(call: &Call) -> Outcome {
    let db = call.inner.read();
    let vm = db.row("VM", call.subject()?)?;
    let told = db.rows("host").map(|host| {
        let words = match placement::can_boot(&db, vm, host) {
            Ok(()) => vec!["WLB".to_owned(), "0.0".to_owned()],
            Err(ApiError { code, params }) => [vec![code], params].concat(),
        };
        (Value::Ref(host.reference), Value::texts(words))
    });
    Ok(Value::map(told.collect()))
}

fn assert_agile(call: &Call) -> Outcome {
    let db = call.inner.read();
    let vm = db.row("VM", call.subject()?)?;
    for vbd in vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd)) {
        let sr =
            db.find("VDI", vbd.reference("VDI")).and_then(|vdi| db.find("SR", vdi.reference("SR")));
        if let Some(sr) = sr.filter(|sr| !sr.flag("shared")) {
            return Err(error("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", [sr.reference]));
        }
    }
    Ok(Value::Void)
}

fn assert_can_migrate(call: &Call) -> Outcome {
    let db = call.inner.read();
    let vm = db.row("VM", call.subject()?)?;
    let target = call.args[1].at("host").and_then(Ref::parse).unwrap_or_default();
    let host = db.row("host", target)?;
    if vm.reference("resident_on") != target {
        placement::can_boot(&db, vm, host)?;
    }
    Ok(Value::Void)
}
