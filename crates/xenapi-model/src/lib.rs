//! The data model of the Xen API, as data: every class, field, message, enumeration and error code.
//!
//! The model is that of API version 2.23. It holds names and types only. The client's code generator
//! and the simulated pool both read it from here, so that they cannot disagree.
//!
//! ```
//! use xenapi_model::{Model, Type};
//!
//! let vm = Model::get().class("VM").expect("every version has it");
//! let start = vm.message("start").expect("every version has it");
//! assert_eq!(start.parameters[0].kind, Type::Ref("VM".into()));
//! assert!(start.is_async);
//! ```

mod kind;

use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

pub use kind::{ParseTypeError, Type};

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let mut model: Model = serde_json::from_str(include_str!("../datamodel.json"))
        .expect("the model that is built in is well formed");
    model.classes.sort_by(|one, other| one.name.cmp(&other.name));
    model
});

/// The whole model.
#[derive(Clone, Debug, Deserialize)]
pub struct Model {
    /// Enumerations by name, with the exact spelling of each of their values.
    pub enums: std::collections::BTreeMap<String, Vec<String>>,
    /// Error codes.
    pub errors: Vec<ErrorCode>,
    /// Classes, by name.
    pub classes: Vec<Class>,
}

impl Model {
    /// The model that is built in. It is read at the first call.
    pub fn get() -> &'static Self {
        &MODEL
    }

    /// The class with this name, in the model's own spelling (`VM`, `host_metrics`).
    pub fn class(&self, name: &str) -> Option<&Class> {
        let place = self.classes.binary_search_by(|class| class.name.as_str().cmp(name)).ok()?;
        Some(&self.classes[place])
    }
}

/// An error code with the names of its parameters.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorCode {
    /// The code: `VM_BAD_POWER_STATE`.
    pub code: String,
    /// Names of the parameters in their order; `None` for a code that servers send and the model's
    /// list leaves out.
    pub params: Option<Vec<String>>,
}

/// A class of objects.
#[derive(Clone, Debug, Deserialize)]
pub struct Class {
    /// Its name as in method names: `VM`.
    pub name: String,
    /// Where in its life it stands.
    pub state: Stage,
    /// The release that brought it.
    pub since: String,
    /// Whether changes of its objects show up in `event.from`.
    pub events: bool,
    /// What its records hold, by name.
    pub fields: Vec<Field>,
    /// What can be called, by name.
    pub messages: Vec<Message>,
}

impl Class {
    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The message with this name.
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.name == name)
    }
}

/// Where in its life a class, field or message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Not yet promised to stay.
    Prototyped,
    /// In use.
    Published,
    /// Works, and is to go.
    Deprecated,
    /// Answers `MESSAGE_REMOVED`.
    Removed,
}

/// A field of a class.
#[derive(Clone, Debug, Deserialize)]
pub struct Field {
    /// Its full name, as in records: `memory_static_max`.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Who may write it, and when.
    pub qualifier: Qualifier,
    /// The value it has when a constructor leaves it out; `None` where a constructor needs it.
    pub default: Option<Value>,
    /// Where in its life it stands.
    pub state: Stage,
    /// The release that brought it.
    pub since: String,
}

/// Who may write a field, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Qualifier {
    /// Clients, when they make the object and any time later.
    #[serde(rename = "RW")]
    ReadWrite,
    /// Clients, when they make the object.
    #[serde(rename = "ctor")]
    Constructor,
    /// The server.
    #[serde(rename = "RO")]
    ReadOnly,
}

/// A message that objects of a class understand.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// Its name without the class: `start`.
    pub name: String,
    /// Whether a session comes before the parameters.
    pub session: bool,
    /// The parameters, without the session.
    #[serde(rename = "params")]
    pub parameters: Vec<Parameter>,
    /// What it answers.
    pub result: Type,
    /// Codes of the errors that are told to be its own.
    pub errors: Vec<String>,
    /// Whether it follows from a field or from the class, and is not hand-written in the server.
    pub implicit: bool,
    /// Whether it can be called as `Async.CLASS.MESSAGE` too.
    #[serde(rename = "async")]
    pub is_async: bool,
    /// Where in its life it stands.
    pub state: Stage,
    /// The release that brought it.
    pub since: String,
}

/// A parameter of a message.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name: `self`, `start_paused`.
    pub name: String,
    /// What it takes.
    pub kind: Type,
    /// Whether it must be there; those that need not be stand at the end.
    pub required: bool,
    /// What the server takes when it is left out.
    pub default: Option<Value>,
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ParameterVisitor)
    }
}

struct ParameterVisitor;

impl<'de> Visitor<'de> for ParameterVisitor {
    type Value = Parameter;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a name, a type, whether it is required and perhaps a default")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Parameter, A::Error> {
        let mut count = 0;
        let mut missing = || {
            count += 1;
            serde::de::Error::invalid_length(count - 1, &"three or four parts")
        };
        Ok(Parameter {
            name: parts.next_element()?.ok_or_else(&mut missing)?,
            kind: parts.next_element()?.ok_or_else(&mut missing)?,
            required: parts.next_element()?.ok_or_else(&mut missing)?,
            default: parts.next_element()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_model_is_whole() {
        let model = Model::get();
        let fields: usize = model.classes.iter().map(|class| class.fields.len()).sum();
        let messages: usize = model.classes.iter().map(|class| class.messages.len()).sum();
        assert_eq!((model.classes.len(), fields, messages), (72, 922, 2007));
        assert_eq!((model.enums.len(), model.errors.len()), (73, 635));
    }

    #[test]
    fn every_type_names_what_the_model_has() {
        let model = Model::get();
        for class in &model.classes {
            let fields = class.fields.iter().map(|field| &field.kind);
            let messages = class.messages.iter().flat_map(|message| {
                message.parameters.iter().map(|parameter| &parameter.kind).chain([&message.result])
            });
            for kind in fields.chain(messages) {
                kind.walk(&mut |part| match part {
                    Type::Ref(name) => assert!(model.class(name).is_some(), "{name}"),
                    Type::Record(name) if name != Type::ANY_CLASS => {
                        assert!(model.class(name).is_some(), "{name}");
                    }
                    Type::Enum(name) => assert!(model.enums.contains_key(name), "{name}"),
                    _ => {}
                });
            }
        }
    }

    #[test]
    fn optional_parameters_stand_at_the_end() {
        for class in &Model::get().classes {
            for message in &class.messages {
                let required = message.parameters.iter().map(|parameter| parameter.required);
                assert!(required.is_sorted_by(|one, next| one >= next), "{}", message.name);
            }
        }
    }
}
