//! Messages: what happened to which object.

use std::sync::Arc;

use super::{Call, Handler, Outcome};
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => create,
        "destroy" => destroy,
        "destroy_many" => destroy_many,
        "destroy_all" => destroy_all,
        "get" => get,
        "get_since" => get_since,
        _ => return None,
    }))
}

fn create(call: &Call) -> Outcome {
    let fields = vec![
        ("name", call.args[0].clone()),
        ("priority", call.args[1].clone()),
        ("cls", call.args[2].clone()),
        ("obj_uuid", call.args[3].clone()),
        ("body", call.args[4].clone()),
        ("timestamp", Value::Time(call.inner.clock.now())),
    ];
    Ok(call.inner.write().insert("message", fields).into())
}

fn destroy(call: &Call) -> Outcome {
    let subject = call.subject()?;
    let mut db = call.inner.write();
    db.row("message", subject)?;
    db.delete("message", subject);
    Ok(Value::Void)
}

fn destroy_many(call: &Call) -> Outcome {
    let mut db = call.inner.write();
    let all: Vec<Ref> = call.args[0].ref_items().collect();
    for message in &all {
        db.row("message", *message)?;
    }
    for message in all {
        db.delete("message", message);
    }
    Ok(Value::Void)
}

fn destroy_all(call: &Call) -> Outcome {
    let filters = &call.args[0];
    let mut db = call.inner.write();
    let fits = |row: &crate::database::Row| {
        let priority = filters.at("priority");
        let before = filters.at("before").and_then(crate::value::parse_time);
        priority.is_none_or(|it| it == row.int("priority").to_string())
            && before.is_none_or(|it| row.int_time("timestamp") < it)
    };
    let all: Vec<Ref> =
        db.rows("message").filter(|row| fits(row)).map(|row| row.reference).collect();
    for message in all {
        db.delete("message", message);
    }
    Ok(Value::Void)
}

fn time(value: &Value) -> i64 {
    if let Value::Time(seconds) = value { *seconds } else { 0 }
}

fn get(call: &Call) -> Outcome {
    let since = time(&call.args[2]);
    let db = call.inner.read();
    let rows = db.rows("message").filter(|row| {
        row.text("cls") == call.text(0)
            && row.text("obj_uuid") == call.text(1)
            && row.int_time("timestamp") >= since
    });
    Ok(Value::Records(Arc::new(rows.cloned().collect())))
}

fn get_since(call: &Call) -> Outcome {
    let since = time(&call.args[0]);
    let db = call.inner.read();
    let rows = db.rows("message").filter(|row| row.int_time("timestamp") >= since);
    Ok(Value::Records(Arc::new(rows.cloned().collect())))
}
