//! Blobs: rows that say how large something is; the pool keeps no content for them.

use super::{Call, Handler, Outcome};
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => create,
        "destroy" => destroy,
        _ => return None,
    }))
}

fn create(call: &Call) -> Outcome {
    Ok(insert(call, "", &call.args[0], &call.args[1]).into())
}

fn insert(call: &Call, name: &str, mime_type: &Value, public: &Value) -> Ref {
    let fields = vec![
        ("name_label", name.into()),
        ("mime_type", mime_type.clone()),
        ("public", public.clone()),
        ("last_updated", Value::Time(call.inner.clock.now())),
    ];
    call.inner.write().insert("blob", fields)
}

fn destroy(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    db.row("blob", subject)?;
    db.delete("blob", subject);
    Ok(Value::Void)
}

/// `create_new_blob` of any class: a blob, and its place in the object's `blobs`.
pub(super) fn create_for(call: &Call) -> Outcome {
    let class = crate::schema::Schema::get().classes[call.method.class].name;
    let subject = call.subject()?;
    call.inner.read().row(class, subject)?;
    let blob = insert(call, call.text(1), &call.args[2], &call.args[3]);
    let mut db = call.inner.write();
    let blobs = db.row(class, subject)?.get("blobs").with(call.args[1].clone(), blob.into());
    db.set(class, subject, "blobs", blobs);
    Ok(blob.into())
}
