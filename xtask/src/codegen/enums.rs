//! Enumerations.

use std::fmt::Write as _;

use xenapi_model::Model;

use super::names::camel;

/// The module of enumerations.
pub(crate) fn enums(model: &Model) -> String {
    let mut text =
        "//! Enumerations. Each has `Unknown`, which keeps what a newer server says.\n\n\
                    use crate::wire::wire_enum;\n\n"
            .to_owned();
    for (wire, values) in &model.enums {
        let _ = write!(text, "wire_enum! {{\n/// The enumeration `{wire}`.\n{} {{\n", name(wire));
        for value in values {
            let _ = writeln!(text, "{} {value:?},", variant(value));
        }
        text += "}\n}\n\n";
    }
    text
}

/// The name of an enumeration; one value of `vm_operations` is one `VmOperation`.
pub(crate) fn name(wire: &str) -> String {
    let singular = ["_operations", "_guidances"].iter().any(|plural| wire.ends_with(plural));
    camel(if singular { &wire[..wire.len() - 1] } else { wire })
}

/// The name of a value. `Unknown` is what stands for those that the model does not have.
pub(crate) fn variant(value: &str) -> String {
    match value {
        "unknown" => "Undetermined".into(),
        _ => camel(value),
    }
}
