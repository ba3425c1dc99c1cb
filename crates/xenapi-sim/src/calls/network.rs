//! Networks.

use super::{Call, Handler, Outcome, blob};
use crate::dispatch::construct;
use crate::error::error;
use crate::value::Value;

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => create,
        "destroy" => destroy,
        "create_new_blob" => blob::create_for,
        _ => return None,
    }))
}

fn create(call: &Call) -> Outcome {
    let mut fields = construct("network", &call.args[0])?;
    let mut db = call.inner.write();
    let named = fields.iter().any(|(name, value)| *name == "bridge" && value.as_str() != Some(""));
    if !named {
        fields.retain(|(name, _)| *name != "bridge");
        let taken = |bridge: &str| db.rows("network").any(|row| row.text("bridge") == bridge);
        // The toolstack names bridges after itself.
        let prefix = concat!("x", "api");
        let free =
            (0..u32::MAX).map(|number| format!("{prefix}{number}")).find(|bridge| !taken(bridge));
        fields.push(("bridge", free.unwrap_or_default().into()));
    }
    Ok(db.insert("network", fields).into())
}

fn destroy(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("network", subject)?.clone();
    if let Some(vif) = row.refs("VIFs").first() {
        return Err(error("NETWORK_CONTAINS_VIF", [vif]));
    }
    if let Some(pif) = row.refs("PIFs").first() {
        return Err(error("NETWORK_CONTAINS_PIF", [pif]));
    }
    db.delete("network", subject);
    Ok(Value::Void)
}
