//! Logging in and out.

use super::{Call, Handler, Outcome};
use crate::error::error;
use crate::sessions;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "login_with_password" => login,
        "slave_local_login_with_password" => local_login,
        "logout" | "local_logout" => logout,
        "change_password" => change_password,
        "get_all_subject_identifiers" => subjects,
        "logout_subject_identifier" => |_| Ok(Value::Void),
        _ => return None,
    }))
}

fn login(call: &Call) -> Outcome {
    Ok(sessions::login(&call.inner, call.host, call.text(0), call.text(1), call.text(3))?.into())
}

fn local_login(call: &Call) -> Outcome {
    Ok(sessions::login(&call.inner, call.host, call.text(0), call.text(1), "local")?.into())
}

fn logout(call: &Call) -> Outcome {
    call.inner.write().delete("session", call.session);
    Ok(Value::Void)
}

fn change_password(call: &Call) -> Outcome {
    let name = call.inner.read().row("session", call.session)?.text("auth_user_name").to_owned();
    let mut users = call.inner.users.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    match users.get_mut(&name) {
        Some(user) if user.password == call.text(0) => {
            call.text(1).clone_into(&mut user.password);
            Ok(Value::Void)
        }
        _ => Err(error("SESSION_AUTHENTICATION_FAILED", [&name, "the old password is wrong"])),
    }
}

fn subjects(call: &Call) -> Outcome {
    let db = call.inner.read();
    let subjects = db.rows("session").map(|row| row.reference("subject"));
    let named = subjects.filter(|subject| *subject != Ref::NULL);
    Ok(Value::texts(named.map(|subject| subject.to_string())))
}
