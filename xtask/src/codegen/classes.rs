//! Marker types of all classes, and the enumeration of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use xenapi_model::Model;

use super::names::{camel, identifier};

/// The module of marker types.
pub(crate) fn markers(model: &Model, defaults: &BTreeSet<&str>) -> String {
    let mut text = "//! One type a class, to say what a reference refers to.\n\n\
                    use crate::wire::{Object, Recorded, class_enum};\n\n"
        .to_owned();
    for class in &model.classes {
        let name = camel(&class.name);
        let _ = write!(
            text,
            "/// The class `{wire}`.\n#[derive(Debug)]\npub enum {name} {{}}\n\n\
             impl Object for {name} {{\nconst CLASS: Class = Class::{name};\n}}\n\n",
            wire = class.name
        );
        if class.fields.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "{}impl Recorded for {name} {{\ntype Record = super::{}::Record;\n}}\n\n",
            super::gate(class, defaults),
            identifier(&class.name)
        );
    }
    text += "class_enum! {\n";
    for class in &model.classes {
        let _ = writeln!(text, "{} {:?} {},", camel(&class.name), class.name, class.events);
    }
    text + "}\n"
}
