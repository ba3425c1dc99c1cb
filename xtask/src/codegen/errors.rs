//! Error codes.

use std::fmt::Write as _;

use xenapi_model::{ErrorCode, Model};

use super::names::{camel, identifier};

/// The module of error codes.
pub(crate) fn errors(model: &Model) -> String {
    let mut text =
        "//! Every error code of the model, with the names of its parameters.\n\n".to_owned();
    text += "use crate::wire::error_kinds;\n\nerror_kinds! {\n";
    for error in &model.errors {
        let _ = writeln!(
            text,
            "{} {:?} {{ {} }},",
            camel(&error.code),
            error.code,
            parameters(error).join(", ")
        );
    }
    text + "}\n"
}

/// Names of the parameters; one that comes twice is numbered.
fn parameters(error: &ErrorCode) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for parameter in error.params.iter().flatten() {
        let name = identifier(parameter);
        if names.contains(&name) {
            names.push(format!("{name}_{}", names.len() + 1));
        } else {
            names.push(name);
        }
    }
    names
}
