//! Hosts' interfaces and VLANs.

use super::{Call, Handler, Outcome};
use crate::database::Database;
use crate::error::{ApiError, error};
use crate::value::{Ref, Value};

pub(super) fn handler(class: &str, message: &str) -> Option<Handler> {
    Some(Handler::Now(match (class, message) {
        ("VLAN", "create") => |call| {
            let mut db = call.inner.write();
            Ok(create_vlan(&mut db, call.reference(0)?, call.int(1), call.reference(2)?)?.into())
        },
        ("VLAN", "destroy") => destroy_vlan,
        ("PIF", "plug") => |call| plug(call, true),
        ("PIF", "unplug") => |call| plug(call, false),
        ("PIF", "scan") => |_| Ok(Value::Void),
        ("PIF", "reconfigure_ip") => reconfigure,
        _ => return None,
    }))
}

/// A VLAN on top of an interface: its own interface on `network`.
pub(super) fn create_vlan(
    db: &mut Database,
    tagged: Ref,
    tag: i64,
    network: Ref,
) -> Result<Ref, ApiError> {
    let below = db.row("PIF", tagged)?.clone();
    db.row("network", network)?;
    if !(0..4095).contains(&tag) {
        return Err(error("VLAN_TAG_INVALID", [tag]));
    }
    let device = below.text("device");
    let taken = db.rows("PIF").any(|row| {
        row.reference("host") == below.reference("host")
            && row.text("device") == device
            && row.int("VLAN") == tag
    });
    if taken {
        return Err(error("PIF_VLAN_EXISTS", [tagged]));
    }
    let vlan = db.new_ref();
    let metrics = db.insert("PIF_metrics", vec![("carrier", true.into())]);
    let untagged = db.insert(
        "PIF",
        vec![
            ("device", device.into()),
            ("network", network.into()),
            ("host", below.reference("host").into()),
            ("MAC", below.text("MAC").into()),
            ("MTU", below.int("MTU").into()),
            ("VLAN", tag.into()),
            ("VLAN_master_of", vlan.into()),
            ("metrics", metrics.into()),
            ("currently_attached", true.into()),
        ],
    );
    let fields =
        vec![("tagged_PIF", tagged.into()), ("untagged_PIF", untagged.into()), ("tag", tag.into())];
    db.insert_as("VLAN", vlan, fields);
    Ok(vlan)
}

fn destroy_vlan(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    let untagged = db.row("VLAN", subject)?.reference("untagged_PIF");
    db.delete("PIF", untagged);
    db.delete("VLAN", subject);
    Ok(Value::Void)
}

fn plug(call: &Call, attached: bool) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("PIF", subject)?;
    if !attached && row.flag("management") {
        return Err(error("PIF_IS_MANAGEMENT_INTERFACE", [subject]));
    }
    db.set("PIF", subject, "currently_attached", attached);
    Ok(Value::Void)
}

fn reconfigure(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    db.row("PIF", subject)?;
    let fields = ["ip_configuration_mode", "IP", "netmask", "gateway", "DNS"];
    for (field, value) in fields.iter().zip(&call.args[1..]) {
        db.set("PIF", subject, field, value.clone());
    }
    Ok(Value::Void)
}
