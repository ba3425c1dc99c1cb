//! The pool as a whole.

use super::{Call, Handler, Outcome, blob, pif};
use crate::value::Value;

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create_VLAN" => |call| create_vlans(call, call.text(0), call.int(2)),
        "create_VLAN_from_PIF" => |call| {
            let device = call.inner.read().row("PIF", call.subject()?)?.text("device").to_owned();
            create_vlans(call, &device, call.int(2))
        },
        "create_new_blob" => blob::create_for,
        "designate_new_master" => designate,
        "sync_database" | "recover_slaves" => |_| Ok(Value::set(Vec::new())),
        "has_extension" => |_| Ok(false.into()),
        "get_license_state" => {
            |_| Ok(Value::text_map([("edition", "xcp-ng"), ("expiry", "never")]))
        }
        _ => return None,
    }))
}

/// A VLAN on the interface with this name of each host, all on one network.
fn create_vlans(call: &Call, device: &str, tag: i64) -> Outcome {
    let network = call.reference(1)?;
    let mut db = call.inner.write();
    let below = db.rows("PIF").filter(|row| row.text("device") == device && row.int("VLAN") < 0);
    let below: Vec<_> = below.map(|row| row.reference).collect();
    let mut made = Vec::new();
    for pif in below {
        let vlan = pif::create_vlan(&mut db, pif, tag, network)?;
        made.push(db.row("VLAN", vlan)?.reference("untagged_PIF"));
    }
    Ok(Value::refs(made))
}

fn designate(call: &Call) -> Outcome {
    let host = call.subject()?;
    let mut db = call.inner.write();
    db.row("host", host)?;
    let pool = call.inner.pool;
    db.set("pool", pool, "master", host);
    drop(db);
    // The new master's toolstack begins anew: sessions are gone, and so are connections.
    crate::control::restart_toolstack(&call.inner);
    Ok(Value::Void)
}
