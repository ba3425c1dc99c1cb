//! Errors as the Xen API tells them: a code and its parameters, all text.

use std::fmt;

use crate::value::Ref;

/// What a failed call answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The code: `VM_BAD_POWER_STATE`.
    pub(crate) code: String,
    /// The parameters, in the order in which the code's description names them.
    pub(crate) params: Vec<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.code, self.params)
    }
}

impl std::error::Error for ApiError {}

/// An error with this code and these parameters.
pub(crate) fn error<P: ToString>(code: &str, params: impl IntoIterator<Item = P>) -> ApiError {
    ApiError { code: code.into(), params: params.into_iter().map(|it| it.to_string()).collect() }
}

/// An error with this code and no parameters.
pub(crate) fn bare(code: &str) -> ApiError {
    ApiError { code: code.into(), params: Vec::new() }
}

/// There is no such object.
pub(crate) fn handle_invalid(class: &str, reference: impl fmt::Display) -> ApiError {
    error("HANDLE_INVALID", [class, &reference.to_string()])
}

/// The operation is not allowed, for this reason.
pub(crate) fn not_allowed(reason: impl fmt::Display) -> ApiError {
    error("OPERATION_NOT_ALLOWED", [reason])
}

/// Something that cannot be put in a code of its own.
pub(crate) fn internal(reason: impl fmt::Display) -> ApiError {
    error("INTERNAL_ERROR", [reason])
}

/// The VM is in a power state that the operation does not take.
pub(crate) fn bad_power_state(vm: Ref, expected: &str, actual: &str) -> ApiError {
    error("VM_BAD_POWER_STATE", [&vm.to_string(), expected, &actual.to_lowercase()])
}
