//! The data model, made ready for quick look-ups: classes, fields, and one entry for each method.

use std::collections::HashMap;
use std::sync::LazyLock;

use xenapi_model::{Class, Field, Message, Model, Qualifier, Stage, Type};

use crate::calls::{self, Handler};
use crate::value::{Ref, Value, parse_time};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::new);

/// Everything that can be asked of a pool.
pub(crate) struct Schema {
    /// Classes, in the model's order.
    pub(crate) classes: Vec<ClassInfo>,
    by_name: HashMap<&'static str, usize>,
    methods: HashMap<String, Method>,
    /// What `system.listMethods` answers.
    pub(crate) names: Vec<String>,
}

/// A class of the model.
pub(crate) struct ClassInfo {
    /// Its name, as in method names.
    pub(crate) name: &'static str,
    /// Its name in lower case, as in events.
    pub(crate) lower: String,
    /// Whether its objects show up in events.
    pub(crate) events: bool,
    /// Its fields, by name.
    pub(crate) fields: Vec<FieldInfo>,
    by_name: HashMap<&'static str, usize>,
}

impl ClassInfo {
    /// Where the field with this name stands in the class's rows.
    pub(crate) fn find_field(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Like `find_field`, for names that the model is known to have.
    pub(crate) fn field(&self, name: &str) -> usize {
        let place = self.find_field(name);
        place.unwrap_or_else(|| panic!("the model has no field `{}.{name}`", self.name))
    }
}

/// A field of a class.
pub(crate) struct FieldInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: &'static Type,
    /// Who may write it.
    pub(crate) qualifier: Qualifier,
    /// Whether a constructor needs it.
    pub(crate) required: bool,
    /// What it holds when nobody says otherwise.
    pub(crate) default: Value,
}

/// A method: a message of a class, and how it is answered.
pub(crate) struct Method {
    /// Its name with the class: `VM.start`.
    pub(crate) name: String,
    /// Which class it belongs to.
    pub(crate) class: usize,
    /// What the model says of it.
    pub(crate) message: &'static Message,
    /// How it is answered.
    pub(crate) kind: Kind,
    /// How many arguments it needs at least.
    pub(crate) required: usize,
}

/// How a method is answered.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// By code of its own.
    Hand(Handler),
    /// With a field.
    Get(usize),
    /// By writing a field.
    Set(usize),
    /// By adding an entry to a map.
    AddEntry(usize),
    /// By removing an entry from a map.
    RemoveEntry(usize),
    /// By adding an item to a set.
    AddItem(usize),
    /// By removing an item from a set.
    RemoveItem(usize),
    /// With a record.
    Record,
    /// With all references.
    All,
    /// With all records.
    AllRecords,
    /// With the records that a query fits.
    AllRecordsWhere,
    /// With the reference for a uuid.
    ByUuid,
    /// With the references for a name.
    ByName,
    /// By making an object of the fields that were sent.
    Create,
    /// By removing an object.
    Destroy,
    /// Not at all: the model says it is gone.
    Removed,
    /// Not at all: the pool does not simulate it.
    Missing,
}

impl Schema {
    /// The schema of the model that is built in.
    pub(crate) fn get() -> &'static Self {
        &SCHEMA
    }

    /// The class with this name, which the model is known to have.
    pub(crate) fn class(&self, name: &str) -> usize {
        let place = self.by_name.get(name);
        *place.unwrap_or_else(|| panic!("the model has no class `{name}`"))
    }

    /// The class with this name, if there is one.
    pub(crate) fn find_class(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The method with this name, in either of its spellings.
    pub(crate) fn method(&self, name: &str) -> Option<&Method> {
        if let Some(method) = self.methods.get(name) {
            return Some(method);
        }
        // `Class_message`: class names have underscores too, so each place may be the one.
        name.match_indices('_').find_map(|(place, _)| {
            let dotted = format!("{}.{}", &name[..place], &name[place + 1..]);
            self.methods.get(&dotted)
        })
    }

    fn new() -> Self {
        let model = Model::get();
        let classes: Vec<ClassInfo> = model.classes.iter().map(class_info).collect();
        let by_name = model.classes.iter().zip(0..).map(|(class, at)| (class.name.as_str(), at));
        let by_name: HashMap<_, _> = by_name.collect();
        let mut methods = HashMap::new();
        for (place, class) in model.classes.iter().enumerate() {
            for message in &class.messages {
                let kind = kind_of(class, &classes[place], message);
                add(&mut methods, class, place, message, kind);
            }
            let lists = class.message("get_all_records");
            if let Some(lists) = lists.filter(|_| class.message("get_all_records_where").is_none())
            {
                let message = Box::leak(Box::new(where_message(lists)));
                add(&mut methods, class, place, message, Kind::AllRecordsWhere);
            }
        }
        let mut names: Vec<String> = methods.keys().cloned().collect();
        names.push("system.listMethods".into());
        names.sort_unstable();
        Self { classes, by_name, methods, names }
    }
}

fn add(
    methods: &mut HashMap<String, Method>,
    class: &Class,
    place: usize,
    message: &'static Message,
    kind: Kind,
) {
    let name = format!("{}.{}", class.name, message.name);
    let required = message.parameters.iter().filter(|parameter| parameter.required).count();
    methods.insert(name.clone(), Method { name, class: place, message, kind, required });
}

/// `get_all_records_where`, which the model leaves out for most classes.
fn where_message(lists: &Message) -> Message {
    let parameter = xenapi_model::Parameter {
        name: "expr".into(),
        kind: Type::String,
        required: true,
        default: None,
    };
    let name = "get_all_records_where".into();
    Message { name, parameters: vec![parameter], ..lists.clone() }
}

fn class_info(class: &'static Class) -> ClassInfo {
    let fields: Vec<FieldInfo> = class.fields.iter().map(field_info).collect();
    let by_name = fields.iter().zip(0..).map(|(field, at)| (field.name, at)).collect();
    let lower = class.name.to_lowercase();
    ClassInfo { name: &class.name, lower, events: class.events, fields, by_name }
}

fn field_info(field: &'static Field) -> FieldInfo {
    let refs = matches!(&field.kind, Type::Set(item) if matches!(**item, Type::Ref(_)));
    let settable = matches!(field.qualifier, Qualifier::ReadWrite | Qualifier::Constructor);
    let default = match &field.default {
        None | Some(serde_json::Value::Null) => empty(&field.kind),
        Some(value) => typed(&field.kind, value).unwrap_or_else(|_| empty(&field.kind)),
    };
    let given = field.default.as_ref().is_some_and(|value| !value.is_null());
    FieldInfo {
        name: &field.name,
        kind: &field.kind,
        qualifier: field.qualifier,
        required: settable && !given && !refs,
        default,
    }
}

/// What a field of this type holds before anybody wrote it.
pub(crate) fn empty(kind: &Type) -> Value {
    match kind {
        Type::Void | Type::Option(_) | Type::EventBatch => Value::Void,
        Type::String => Value::text(""),
        Type::Int => Value::Int(0),
        Type::Float => Value::Float(0.0),
        Type::Bool => Value::Bool(false),
        Type::DateTime => Value::Time(0),
        Type::Enum(name) => {
            let first = Model::get().enums.get(name).and_then(|values| values.first());
            Value::text(first.map_or("", String::as_str))
        }
        Type::Ref(_) => Value::Ref(Ref::NULL),
        Type::Record(_) => Value::members(Vec::new()),
        Type::Set(_) => Value::set(Vec::new()),
        Type::Map(..) => Value::map(Vec::new()),
    }
}

/// Reads a value of this type from what came over a wire; a text that says why it is none otherwise.
pub(crate) fn typed(kind: &Type, raw: &serde_json::Value) -> Result<Value, String> {
    use serde_json::Value as Raw;
    let wrong =
        || Err(format!("a value of the type `{kind}` was expected, and {} came", shape(raw)));
    match (kind, raw) {
        (Type::Void | Type::EventBatch, _) | (Type::Option(_), Raw::Null) => Ok(Value::Void),
        (Type::String, Raw::String(text)) => Ok(Value::text(text)),
        (Type::Enum(name), Raw::String(text)) => {
            let known = Model::get().enums.get(name).is_some_and(|values| values.contains(text));
            if known { Ok(Value::text(text)) } else { Err(format!("`{text}` is no `{name}`")) }
        }
        (Type::Int, Raw::Number(number)) => match number.as_i64() {
            Some(number) => Ok(Value::Int(number)),
            None => wrong(),
        },
        (Type::Int, Raw::String(text)) => match text.trim().parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => Err(format!("`{text}` is no whole number")),
        },
        (Type::Float, Raw::Number(number)) => Ok(Value::Float(number.as_f64().unwrap_or(0.0))),
        (Type::Float, Raw::String(text)) => match text.trim().parse() {
            Ok(number) => Ok(Value::Float(number)),
            Err(_) => Err(format!("`{text}` is no number")),
        },
        (Type::Bool, Raw::Bool(truth)) => Ok(Value::Bool(*truth)),
        (Type::DateTime, Raw::String(text)) => match parse_time(text) {
            Some(seconds) => Ok(Value::Time(seconds)),
            None => Err(format!("`{text}` is no point in time")),
        },
        (Type::Ref(_), Raw::String(text)) => Ok(match Ref::parse(text) {
            Some(reference) => Value::Ref(reference),
            // Kept as it came, for the error that says there is no such object.
            None => Value::text(text),
        }),
        (Type::Set(item), Raw::Array(items)) => {
            Ok(Value::set(items.iter().map(|raw| typed(item, raw)).collect::<Result<_, _>>()?))
        }
        (Type::Map(key, value), Raw::Object(entries)) => {
            let entry = |(name, raw): (&String, &Raw)| {
                Ok::<_, String>((typed(key, &Raw::String(name.clone()))?, typed(value, raw)?))
            };
            Ok(Value::map(entries.iter().map(entry).collect::<Result<_, _>>()?))
        }
        (Type::Record(class), Raw::Object(members)) => record(class, members),
        (Type::Option(item), raw) => typed(item, raw),
        _ => wrong(),
    }
}

/// The members of a record that the class has fields for.
fn record(class: &str, raw: &serde_json::Map<String, serde_json::Value>) -> Result<Value, String> {
    let schema = Schema::get();
    let Some(class) = schema.find_class(class) else { return Ok(Value::members(Vec::new())) };
    let fields = schema.classes[class].fields.iter();
    let member = |field: &'static FieldInfo| {
        let value = raw.get(field.name)?;
        let settable = matches!(field.qualifier, Qualifier::ReadWrite | Qualifier::Constructor);
        match typed(field.kind, value) {
            Ok(value) => Some(Ok((field.name, value))),
            // What a constructor does not take may look like anything.
            Err(_) if !settable => None,
            Err(reason) => Some(Err(format!("{}: {reason}", field.name))),
        }
    };
    Ok(Value::members(fields.filter_map(member).collect::<Result<_, _>>()?))
}

fn shape(raw: &serde_json::Value) -> &'static str {
    match raw {
        serde_json::Value::Null => "nothing",
        serde_json::Value::Bool(_) => "a truth value",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "text",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "a struct",
    }
}

fn kind_of(class: &Class, info: &ClassInfo, message: &Message) -> Kind {
    if message.state == Stage::Removed {
        return Kind::Removed;
    }
    if let Some(handler) = calls::handler(&class.name, &message.name) {
        return Kind::Hand(handler);
    }
    let name = message.name.as_str();
    match name {
        "get_record" => return Kind::Record,
        "get_all" => return Kind::All,
        "get_all_records" => return Kind::AllRecords,
        "get_all_records_where" => return Kind::AllRecordsWhere,
        "get_by_uuid" => return Kind::ByUuid,
        "get_by_name_label" => return Kind::ByName,
        "create" if message.implicit => return Kind::Create,
        "destroy" if message.implicit => return Kind::Destroy,
        _ => {}
    }
    by_field(info, message).unwrap_or(Kind::Missing)
}

/// What a message does that is named after a field and takes what such a message takes.
fn by_field(info: &ClassInfo, message: &Message) -> Option<Kind> {
    let name = message.name.as_str();
    let kinds: Vec<&Type> = message.parameters.iter().skip(1).map(|param| &param.kind).collect();
    let field = |prefix: &str| {
        let at = info.find_field(name.strip_prefix(prefix)?)?;
        Some((at, info.fields[at].kind))
    };
    if let Some((at, kind)) = field("get_") {
        return (kinds.is_empty() && message.result == *kind).then_some(Kind::Get(at));
    }
    if let Some((at, kind)) = field("set_") {
        return (kinds == [kind]).then_some(Kind::Set(at));
    }
    if let Some((at, Type::Map(key, value))) = field("add_to_") {
        return (kinds == [&**key, &**value]).then_some(Kind::AddEntry(at));
    }
    if let Some((at, Type::Map(key, _))) = field("remove_from_") {
        return (kinds == [&**key]).then_some(Kind::RemoveEntry(at));
    }
    if let Some((at, Type::Set(item))) = field("add_") {
        return (kinds == [&**item]).then_some(Kind::AddItem(at));
    }
    if let Some((at, Type::Set(item))) = field("remove_") {
        return (kinds == [&**item]).then_some(Kind::RemoveItem(at));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_method_reach_it() {
        let schema = Schema::get();
        for (dotted, underscored) in [
            ("event.from", "event_from"),
            ("VM_guest_metrics.get_record", "VM_guest_metrics_get_record"),
            ("VM.get_record", "VM_get_record"),
        ] {
            assert_eq!(schema.method(dotted).unwrap().name, dotted);
            assert_eq!(schema.method(underscored).unwrap().name, dotted);
        }
        assert!(schema.method("VM.fly").is_none());
    }

    #[test]
    fn every_getter_and_setter_of_a_field_is_answered() {
        let schema = Schema::get();
        let missing: Vec<&str> = schema
            .methods
            .values()
            .filter(|method| method.message.implicit && matches!(method.kind, Kind::Missing))
            .map(|method| method.name.as_str())
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn whole_numbers_are_taken_as_text_too() {
        let big = serde_json::json!("4294967296");
        assert_eq!(typed(&Type::Int, &big), Ok(Value::Int(1 << 32)));
        assert!(typed(&Type::Bool, &serde_json::json!("true")).is_err());
        assert!(typed(&Type::String, &serde_json::json!({})).is_err());
    }
}
