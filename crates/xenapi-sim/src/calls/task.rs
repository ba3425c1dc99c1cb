//! Tasks that clients make for themselves, and the end of any task.

use super::{Call, Handler, Outcome};
use crate::tasks;
use crate::value::Value;

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => {
            |call| Ok(tasks::create(&call.inner, call.host, call.text(0), call.text(1)).into())
        }
        "destroy" => destroy,
        "cancel" => cancel,
        _ => return None,
    }))
}

fn destroy(call: &Call) -> Outcome {
    tasks::destroy(&call.inner, call.subject()?)?;
    Ok(Value::Void)
}

fn cancel(call: &Call) -> Outcome {
    let canceller = call.inner.write().new_ref();
    tasks::cancel(&call.inner, canceller, call.subject()?)?;
    Ok(Value::Void)
}
