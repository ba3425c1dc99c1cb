//! Messages: one small method each, which makes a call without sending it.

use std::fmt::Write as _;

use serde_json::Value;
use xenapi_model::{Class, Message, Parameter, Stage, Type};

use super::names::{camel, identifier, lower};
use super::{owned, records};

/// The messages of a class, or nothing where it has none.
pub(crate) fn messages(class: &Class) -> String {
    if class.messages.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "/// Messages of the class `{}`; [`Client::{}`] has them.\n#[derive(Debug)]\npub struct \
         Messages<'c>(pub(crate) &'c Client);\n\nimpl Messages<'_> {{\n",
        class.name,
        identifier(&class.name).trim_start_matches("r#")
    );
    for message in &class.messages {
        text += &method(class, message);
    }
    text + "}\n"
}

fn method(class: &Class, message: &Message) -> String {
    let names: Vec<String> = message
        .parameters
        .iter()
        .map(|parameter| parameter_name(class, message, parameter))
        .collect();
    let mut text = about(class, message);
    let _ = write!(text, "pub fn {}(&self", identifier(&message.name));
    for (name, parameter) in names.iter().zip(&message.parameters) {
        let kind = borrowed(&parameter.kind);
        if parameter.required {
            let _ = write!(text, ", {name}: {kind}");
        } else {
            let _ = write!(text, ", {name}: Option<{kind}>");
        }
    }
    let call = if message.is_async { "AsyncCall" } else { "Call" };
    let effect = effect(message);
    let open = if message.session { "" } else { ".without_session()" };
    let _ = write!(
        text,
        ") -> {call}<{}> {{\n{call}::new(self.0, Request::{effect}(\"{}.{}\", {}){open})\n}}\n\n",
        owned(&message.result),
        class.name,
        message.name,
        arguments(&names, message)
    );
    text
}

fn arguments(names: &[String], message: &Message) -> String {
    let required: Vec<String> = names
        .iter()
        .zip(&message.parameters)
        .filter(|(_, parameter)| parameter.required)
        .map(|(name, _)| format!("{name}.to_wire()"))
        .collect();
    let required = format!("vec![{}]", required.join(", "));
    let optional: Vec<String> = names
        .iter()
        .zip(&message.parameters)
        .filter(|(_, parameter)| !parameter.required)
        .map(|(name, parameter)| {
            let default = default(parameter);
            format!("({name}.map(|value| value.to_wire()), {default})")
        })
        .collect();
    if optional.is_empty() {
        return required;
    }
    format!("with_optional({required}, vec![{}])", optional.join(", "))
}

/// What stands in for an optional parameter that is left out before one that is given.
fn default(parameter: &Parameter) -> String {
    let value = parameter.default.as_ref().unwrap_or(&Value::Null);
    let value = records::literal(value, &parameter.kind);
    if value == "Default::default()" {
        format!("<{}>::default().to_wire()", owned(&parameter.kind))
    } else {
        format!("({value}).to_wire()")
    }
}

fn parameter_name(class: &Class, message: &Message, parameter: &Parameter) -> String {
    if parameter.name != "self" {
        return identifier(&parameter.name);
    }
    let name = lower(&class.name);
    let taken = message.parameters.iter().any(|other| lower(&other.name) == name);
    if taken { "this".into() } else { identifier(&class.name) }
}

/// The type as parameters have it.
fn borrowed(kind: &Type) -> String {
    match kind {
        Type::String => "&str".into(),
        Type::Set(item) => format!("&[{}]", owned(item)),
        Type::Ref(_) | Type::Record(_) | Type::Map(..) | Type::EventBatch => {
            format!("&{}", owned(kind))
        }
        Type::Void
        | Type::Int
        | Type::Float
        | Type::Bool
        | Type::DateTime
        | Type::Enum(_)
        | Type::Option(_) => owned(kind),
    }
}

/// Which kind of request the message makes.
fn effect(message: &Message) -> &'static str {
    match repeatable(message) {
        true if quick(message) => "get",
        true => "read",
        false => "write",
    }
}

/// Whether servers answer from their database and with little. What they have code of their own for may ask
/// a hypervisor or a disk.
fn quick(message: &Message) -> bool {
    let name = message.name.as_str();
    message.implicit && name.starts_with("get_") && !name.starts_with("get_all")
}

/// Whether the message changes nothing, so that a second one does no harm.
fn repeatable(message: &Message) -> bool {
    const BEGINNINGS: [&str; 5] = ["get_", "assert_", "compute_", "query_", "has_"];
    let name = message.name.as_str();
    name == "from" || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

fn about(class: &Class, message: &Message) -> String {
    let mut text =
        format!("/// Calls `{}.{}`, there since {}.", class.name, message.name, message.since);
    text += match message.state {
        Stage::Prototyped => " It is not yet promised to stay.",
        Stage::Published => "",
        Stage::Deprecated => " It is deprecated.",
        Stage::Removed => " It was removed: servers answer `MESSAGE_REMOVED`.",
    };
    text.push('\n');
    if !message.errors.is_empty() {
        let codes: Vec<String> = message.errors.iter().map(|code| format!("`{code}`")).collect();
        let _ = writeln!(text, "///\n/// Errors of its own: {}.", codes.join(", "));
    }
    let records = message.parameters.iter().filter_map(|parameter| match &parameter.kind {
        Type::Record(class) if class != Type::ANY_CLASS => Some(camel(class)),
        _ => None,
    });
    for _ in records {
        text += "///\n/// Of the record, only what a constructor takes is sent.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use xenapi_model::Model;

    use super::*;

    fn message(class: &str, name: &str) -> String {
        let class = Model::get().class(class).unwrap();
        method(class, class.message(name).unwrap())
    }

    #[test]
    fn a_message_is_a_method_that_makes_a_call() {
        let text = message("VM", "start");
        assert!(text.contains(
            "pub fn start(&self, vm: &Ref<class::Vm>, start_paused: bool, force: bool) -> \
             AsyncCall<()>"
        ));
        assert!(text.contains("Request::write(\"VM.start\""));
    }

    #[test]
    fn optional_parameters_are_options_with_the_models_defaults() {
        let text = message("VM", "snapshot");
        assert!(text.contains("ignore_vdis: Option<&[Ref<class::Vdi>]>"), "{text}");
        assert!(text.contains("<Vec<Ref<class::Vdi>>>::default().to_wire()"), "{text}");
    }

    #[test]
    fn only_what_changes_nothing_may_be_repeated() {
        assert!(message("VM", "get_all_records").contains("Request::read"));
        assert!(message("event", "from").contains("Request::read"));
        assert!(message("VM", "set_name_label").contains("Request::write"));
    }

    #[test]
    fn only_what_is_read_from_the_database_is_quick() {
        for name in ["get_record", "get_name_label", "get_by_uuid", "get_VBDs"] {
            assert!(message("VM", name).contains("Request::get("), "{name}");
        }
        for name in ["get_all", "get_all_records", "get_possible_hosts", "assert_agile"] {
            assert!(message("VM", name).contains("Request::read("), "{name}");
        }
    }

    #[test]
    fn a_login_needs_no_session() {
        assert!(message("session", "login_with_password").contains(".without_session()"));
    }
}
