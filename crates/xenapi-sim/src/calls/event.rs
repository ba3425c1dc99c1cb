//! Hearing of changes.

use super::{Call, Handler, Outcome};
use crate::error::{bare, handle_invalid};
use crate::events::{self, Subscription, Token};
use crate::schema::Schema;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "from" => Handler::Wait(|call| Box::pin(from(call))),
        "inject" => Handler::Now(inject),
        "get_current_id" => Handler::Now(current),
        "register" | "next" | "unregister" => Handler::Now(|_| Err(bare("MESSAGE_DEPRECATED"))),
        _ => return None,
    })
}

async fn from(call: Call) -> Outcome {
    let classes: Vec<&str> = call.args[0].items().iter().filter_map(Value::as_str).collect();
    let wanted = Subscription::parse(classes)?;
    let token = Token::parse(call.text(1))?;
    let timeout = if let Value::Float(seconds) = call.args[2] { seconds } else { 0.0 };
    events::from(&call.inner, &call.session.to_string(), &wanted, token, timeout).await
}

fn inject(call: &Call) -> Outcome {
    let (class, text) = (call.text(0), call.text(1));
    let schema = Schema::get();
    let place = schema.classes.iter().position(|it| it.lower == class.to_lowercase());
    let reference = Ref::parse(text);
    let mut db = call.inner.write();
    let known = place.zip(reference).filter(|(place, it)| db.row_at(*place, *it).is_ok());
    let Some((place, reference)) = known else { return Err(handle_invalid(class, text)) };
    let token = Token::now(&db);
    db.touch_row(place, reference);
    Ok(token.to_string().into())
}

fn current(call: &Call) -> Outcome {
    let generation = call.inner.read().generation();
    Ok(Value::Int(i64::try_from(generation).unwrap_or(i64::MAX)))
}
