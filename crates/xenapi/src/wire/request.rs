//! What is asked of a server, as a plain value.

use std::borrow::Cow;

use super::Value;

/// What a message does, as far as it matters for how it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It may change something, and is sent once.
    Write,
    /// It changes nothing, and may be sent again when its answer was lost.
    Read,
    /// It changes nothing and is answered at once with little, so that others can wait behind it: it may
    /// share a connection too.
    Get,
}

/// A message with its parameters, not yet sent and not yet bound to a wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The message, without `Async.`: `VM.start`.
    pub method: Cow<'static, str>,
    /// The parameters, without the session.
    pub params: Vec<Value>,
    /// Whether the session comes before the parameters.
    pub session: bool,
    /// What it does to the server, and so what may be done with it.
    pub effect: Effect,
    /// Whether it is to start a task instead of being waited for.
    pub task: bool,
}

impl Request {
    /// A message that may change something.
    pub fn write(method: impl Into<Cow<'static, str>>, params: Vec<Value>) -> Self {
        let (session, effect, task) = (true, Effect::Write, false);
        Self { method: method.into(), params, session, effect, task }
    }

    /// A message that changes nothing, and may be repeated.
    pub fn read(method: impl Into<Cow<'static, str>>, params: Vec<Value>) -> Self {
        Self { effect: Effect::Read, ..Self::write(method, params) }
    }

    /// A message that reads a field or the record of one object, or finds objects by what names them.
    ///
    /// It may share a connection with others of its kind, and then wait until those before it were
    /// answered: this is nothing for what takes its time or has a large answer.
    pub fn get(method: impl Into<Cow<'static, str>>, params: Vec<Value>) -> Self {
        Self { effect: Effect::Get, ..Self::write(method, params) }
    }

    /// This message as one that takes no session.
    #[must_use]
    pub fn without_session(self) -> Self {
        Self { session: false, ..self }
    }

    /// This message as one that starts a task and answers with the reference of it.
    #[must_use]
    pub fn as_task(self) -> Self {
        Self { task: true, effect: Effect::Write, ..self }
    }

    /// The name as it is sent: `Async.VM.start`.
    pub fn wire_name(&self) -> Cow<'_, str> {
        if self.task {
            format!("Async.{}", self.method).into()
        } else {
            self.method.as_ref().into()
        }
    }
}

/// Which of the wires is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// JSON-RPC 2.0.
    JsonRpc2,
    /// JSON-RPC 1.0.
    JsonRpc1,
    /// XML-RPC.
    XmlRpc,
}

impl Protocol {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::JsonRpc2, Self::JsonRpc1, Self::XmlRpc];

    /// Where requests go.
    pub const fn path(self) -> &'static str {
        match self {
            Self::JsonRpc2 | Self::JsonRpc1 => "/jsonrpc",
            Self::XmlRpc => "/",
        }
    }

    /// The type of the bodies, both ways.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::JsonRpc2 | Self::JsonRpc1 => "application/json",
            Self::XmlRpc => "text/xml",
        }
    }
}

/// Adds the optional parameters up to the last one that is given; those left out before it take the
/// model's default, as parameters go by position.
pub(crate) fn with_optional(
    mut params: Vec<Value>,
    optional: Vec<(Option<Value>, Value)>,
) -> Vec<Value> {
    let given = optional.iter().rposition(|(value, _)| value.is_some());
    let count = given.map_or(0, |last| last + 1);
    params
        .extend(optional.into_iter().take(count).map(|(value, default)| value.unwrap_or(default)));
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_neither_repeated_nor_waited_behind() {
        let question = Request::get("VM.get_name_label", vec![]);
        assert_eq!(question.effect, Effect::Get);
        assert_eq!(question.as_task().effect, Effect::Write);
    }

    #[test]
    fn optional_parameters_are_cut_from_the_right_only() {
        let optional = |values: [Option<i64>; 3]| {
            let values = values.map(|value| (value.map(Value::Int), Value::Int(0)));
            with_optional(vec![Value::Bool(true)], values.into())
        };
        assert_eq!(optional([None, None, None]), [Value::Bool(true)]);
        assert_eq!(
            optional([None, Some(7), None]),
            [Value::Bool(true), Value::Int(0), Value::Int(7)]
        );
    }
}
