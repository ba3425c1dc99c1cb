//! How hosts reach storage repositories.

use super::{Call, Handler, Outcome};
use crate::dispatch::construct;
use crate::error::{error, not_allowed};
use crate::value::Value;

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => create,
        "destroy" => destroy,
        "plug" => |call| plug(call, true),
        "unplug" => |call| plug(call, false),
        _ => return None,
    }))
}

fn create(call: &Call) -> Outcome {
    let fields = construct("PBD", &call.args[0])?;
    Ok(call.inner.write().insert("PBD", fields).into())
}

fn destroy(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    if db.row("PBD", subject)?.flag("currently_attached") {
        return Err(not_allowed("the PBD is plugged in"));
    }
    db.delete("PBD", subject);
    Ok(Value::Void)
}

fn plug(call: &Call, attached: bool) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("PBD", subject)?.clone();
    if !attached {
        let host = row.reference("host");
        let vdis = db.find("SR", row.reference("SR")).map(|sr| sr.refs("VDIs")).unwrap_or_default();
        let busy = vdis.into_iter().find(|vdi| {
            let vbds = db.find("VDI", *vdi).map(|vdi| vdi.refs("VBDs")).unwrap_or_default();
            vbds.into_iter().filter_map(|vbd| db.find("VBD", vbd)).any(|vbd| {
                let vm = db.find("VM", vbd.reference("VM"));
                vbd.flag("currently_attached")
                    && vm.is_some_and(|vm| vm.reference("resident_on") == host)
            })
        });
        if let Some(vdi) = busy {
            return Err(error("VDI_IN_USE", [&vdi.to_string(), "unplug"]));
        }
    }
    db.set("PBD", subject, "currently_attached", attached);
    Ok(Value::Void)
}
