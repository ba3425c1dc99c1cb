//! From a call to its answer: checks in the server's order, then the work.

use std::sync::Arc;

use xenapi_model::Type;

use crate::calls::{Call, Handler};
use crate::database::Database;
use crate::error::{ApiError, bare, error, handle_invalid, internal};
use crate::inner::Inner;
use crate::query::Query;
use crate::schema::{Kind, Method, Schema, empty, typed};
use crate::value::{Ref, Value};
use crate::{sessions, tasks};

/// Answers a call that arrived at this host.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    host: usize,
    name: &str,
    params: &[serde_json::Value],
) -> Result<Value, ApiError> {
    let schema = Schema::get();
    if name == "system.listMethods" {
        return Ok(Value::texts(&schema.names));
    }
    let (plain, in_background) = match name.strip_prefix("Async.") {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let Some(method) = schema.method(plain) else {
        return Err(unknown(inner, host, plain, params));
    };
    check_count(method, params)?;
    let (session_text, given) = match params.split_first() {
        Some((session, rest)) if method.message.session => (session.as_str().unwrap_or(""), rest),
        _ => ("", params),
    };
    let local =
        method.name.starts_with("session.slave_local") || method.name == "session.local_logout";
    check_host(inner, host, local)?;
    let session = if method.message.session {
        let session = sessions::check(inner, session_text)?;
        let class = schema.classes[method.class].name;
        sessions::permit(inner, session, class, &method.message.name)?;
        session
    } else {
        Ref::NULL
    };
    if in_background && !method.message.is_async {
        return Err(error("Fault", [format!("{plain} cannot be called as Async")]));
    }
    let args = arguments(method, given)?;
    let inner = inner.clone();
    let call = Call { inner, host, session, method, args, task: Ref::NULL };
    if in_background { Ok(start(call).into()) } else { run(call).await }
}

/// Whether a call of this message only waits for something: nobody has any of it when the caller hangs up.
pub(crate) fn is_waiting(name: &str) -> bool {
    let method = Schema::get().method(name);
    method.is_some_and(|method| matches!(method.kind, Kind::Hand(Handler::Wait(_))))
}

fn unknown(inner: &Arc<Inner>, host: usize, name: &str, params: &[serde_json::Value]) -> ApiError {
    if let Err(error) = check_host(inner, host, false) {
        return error;
    }
    let session = params.first().map(|session| session.as_str().unwrap_or(""));
    if let Some(Err(error)) = session.map(|session| sessions::check(inner, session)) {
        return error;
    }
    error("MESSAGE_METHOD_UNKNOWN", [name])
}

fn check_count(method: &Method, params: &[serde_json::Value]) -> Result<(), ApiError> {
    let received = params.len().saturating_sub(usize::from(method.message.session));
    let missing_session = method.message.session && params.is_empty();
    let fits = (method.required..=method.message.parameters.len()).contains(&received);
    if fits && !missing_session {
        return Ok(());
    }
    let counts = [method.name.clone(), method.required.to_string(), received.to_string()];
    Err(error("MESSAGE_PARAMETER_COUNT_MISMATCH", counts))
}

fn check_host(inner: &Inner, host: usize, local: bool) -> Result<(), ApiError> {
    let db = inner.read();
    let place = &inner.hosts[host];
    let master = db.find("pool", inner.pool).map(|pool| pool.reference("master"));
    if local || master == Some(place.host) {
        return Ok(());
    }
    let master = inner.hosts.iter().find(|it| Some(it.host) == master).unwrap_or(&inner.hosts[0]);
    Err(error("HOST_IS_SLAVE", [&master.address]))
}

/// The arguments by the model's types, with defaults for those that were left out.
fn arguments(method: &Method, given: &[serde_json::Value]) -> Result<Vec<Value>, ApiError> {
    let parameters = method.message.parameters.iter().enumerate();
    let argument = |(place, parameter): (usize, &xenapi_model::Parameter)| {
        let Some(raw) = given.get(place) else {
            let default =
                parameter.default.as_ref().and_then(|raw| typed(&parameter.kind, raw).ok());
            return Ok(default.unwrap_or_else(|| empty(&parameter.kind)));
        };
        typed(&parameter.kind, raw)
            .map_err(|reason| internal(format!("{}: {}: {reason}", method.name, parameter.name)))
    };
    parameters.map(argument).collect()
}

/// Runs a call in the background, and answers the task that stands for it.
fn start(mut call: Call) -> Ref {
    let inner = call.inner.clone();
    let label = format!("Async.{}", call.method.name);
    call.task = tasks::create(&inner, call.host, &label, "");
    let task = call.task;
    // Registered before the answer, so that it can be cancelled from the first moment.
    drop(inner.cancellable(task));
    let owner = inner.clone();
    inner.spawn(async move {
        let outcome = work(call).await;
        tasks::finish(&owner, task, &outcome);
    });
    task
}

/// Runs a call, and answers its result.
async fn run(mut call: Call) -> Result<Value, ApiError> {
    let Kind::Hand(handler) = call.method.kind else { return generic(&call) };
    match handler {
        Handler::Now(handler) => handler(&call),
        Handler::Wait(handler) => handler(call).await,
        Handler::Later(_) => {
            // The work goes on when the caller hangs up, as on the real server.
            let inner = call.inner.clone();
            call.task = tasks::create(&inner, call.host, &call.method.name, "");
            let task = call.task;
            drop(inner.cancellable(task));
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let owner = inner.clone();
            inner.spawn(async move {
                let outcome = work(call).await;
                owner.forget_cancel(task);
                owner.take_doomed(task);
                owner.write().delete("task", task);
                // A caller that hung up is told nothing.
                let _ = sender.send(outcome);
            });
            receiver.await.unwrap_or_else(|_| Err(bare("TASK_CANCELLED")))
        }
    }
}

/// The work of a call that has a task.
async fn work(call: Call) -> Result<Value, ApiError> {
    let Kind::Hand(handler) = call.method.kind else { return generic(&call) };
    match handler {
        Handler::Now(handler) => handler(&call),
        Handler::Wait(handler) | Handler::Later(handler) => handler(call).await,
    }
}

/// Answers what follows from the model alone.
fn generic(call: &Call) -> Result<Value, ApiError> {
    let inner = &call.inner;
    let class = call.method.class;
    let info = &Schema::get().classes[class];
    match call.method.kind {
        Kind::Get(field) => Ok(inner.read().row_at(class, call.subject()?)?.values[field].clone()),
        Kind::Record => Ok(Value::Record(inner.read().row_at(class, call.subject()?)?.clone())),
        Kind::All => Ok(Value::refs(inner.read().rows_at(class).map(|row| row.reference))),
        Kind::AllRecords => {
            Ok(Value::Records(Arc::new(inner.read().rows_at(class).cloned().collect())))
        }
        Kind::AllRecordsWhere => matching(&inner.read(), class, call.text(0)),
        Kind::ByUuid => Ok(inner.read().by_uuid(class, call.text(0))?.into()),
        Kind::ByName => Ok(Value::refs(inner.read().by_name(class, call.text(0)))),
        Kind::Set(field) => {
            let subject = call.subject()?;
            let mut db = inner.write();
            db.row_at(class, subject)?;
            db.set_at(class, subject, field, call.args[1].clone());
            Ok(Value::Void)
        }
        Kind::AddEntry(field) => {
            add_entry(inner, class, field, call.subject()?, &call.args[1], &call.args[2])
        }
        Kind::RemoveEntry(field) => edit(call, field, |before| before.without(&call.args[1])),
        Kind::AddItem(field) => edit(call, field, |before| {
            let mut items = before.items().to_vec();
            if !items.contains(&call.args[1]) {
                items.push(call.args[1].clone());
            }
            Value::set(items)
        }),
        Kind::RemoveItem(field) => edit(call, field, |before| {
            let items = before.items().iter().filter(|item| **item != call.args[1]);
            Value::set(items.cloned().collect())
        }),
        Kind::Create => {
            let fields = construct(info.name, &call.args[0])?;
            Ok(inner.write().insert(info.name, fields).into())
        }
        Kind::Destroy => {
            let subject = call.subject()?;
            let mut db = inner.write();
            db.row_at(class, subject)?;
            db.delete(info.name, subject);
            Ok(Value::Void)
        }
        Kind::Removed => Err(bare("MESSAGE_REMOVED")),
        Kind::Missing | Kind::Hand(_) => Err(error("NOT_IMPLEMENTED", [&call.method.name])),
    }
}

fn edit(call: &Call, field: usize, change: impl Fn(&Value) -> Value) -> Result<Value, ApiError> {
    let (class, subject) = (call.method.class, call.subject()?);
    let mut db = call.inner.write();
    let after = change(&db.row_at(class, subject)?.values[field]);
    db.set_at(class, subject, field, after);
    Ok(Value::Void)
}

fn add_entry(
    inner: &Inner,
    class: usize,
    field: usize,
    subject: Ref,
    key: &Value,
    value: &Value,
) -> Result<Value, ApiError> {
    let mut db = inner.write();
    let before = &db.row_at(class, subject)?.values[field];
    if before.entries().iter().any(|(name, _)| name == key) {
        let info = &Schema::get().classes[class];
        let told = [info.name, info.fields[field].name, &subject.to_string(), &key.plain()];
        return Err(error("MAP_DUPLICATE_KEY", told));
    }
    let after = before.with(key.clone(), value.clone());
    db.set_at(class, subject, field, after);
    Ok(Value::Void)
}

fn matching(db: &Database, class: usize, text: &str) -> Result<Value, ApiError> {
    let query = Query::parse(text).map_err(|reason| internal(format!("{text}: {reason}")))?;
    let info = &Schema::get().classes[class];
    let known = |name: &str| info.find_field(&name.replace("__", "_")).is_some();
    if let Some(field) = query.unknown_field(&known) {
        return Err(internal(format!("{} has no field `{field}`", info.name)));
    }
    let rows = db.rows_at(class).filter(|row| query.fits(row));
    Ok(Value::Records(Arc::new(rows.cloned().collect())))
}

/// The fields that a constructor was given and may be given; those without a default must be there.
pub(crate) fn construct(
    class: &str,
    given: &Value,
) -> Result<Vec<(&'static str, Value)>, ApiError> {
    let schema = Schema::get();
    let info = &schema.classes[schema.class(class)];
    let Value::Struct(members) = given else { return Err(internal("a struct was expected")) };
    let settable = |name: &str| {
        let field = &info.fields[info.field(name)];
        !matches!(field.qualifier, xenapi_model::Qualifier::ReadOnly)
    };
    let fields: Vec<_> = members.iter().filter(|(name, _)| settable(name)).cloned().collect();
    let missing = info
        .fields
        .iter()
        .filter(|field| field.required)
        .find(|field| !fields.iter().any(|(name, _)| *name == field.name));
    match missing {
        None => Ok(fields),
        Some(field) => {
            Err(internal(format!("{class}.create: the field `{}` is missing", field.name)))
        }
    }
}

impl Call {
    /// The object that the first argument names; it need not be there.
    pub(crate) fn subject(&self) -> Result<Ref, ApiError> {
        self.reference(0)
    }

    /// The reference at this place; text that is no reference refers to no object.
    pub(crate) fn reference(&self, place: usize) -> Result<Ref, ApiError> {
        match &self.args[place] {
            Value::Ref(reference) => Ok(*reference),
            other => {
                let kind = &self.method.message.parameters[place].kind;
                let class = if let Type::Ref(class) = kind { class } else { "" };
                Err(handle_invalid(class, other.plain()))
            }
        }
    }

    /// The text at this place.
    pub(crate) fn text(&self, place: usize) -> &str {
        self.args[place].as_str().unwrap_or_default()
    }

    /// The whole number at this place.
    pub(crate) fn int(&self, place: usize) -> i64 {
        self.args[place].as_int()
    }

    /// The truth value at this place.
    pub(crate) fn flag(&self, place: usize) -> bool {
        self.args[place].as_bool()
    }
}
