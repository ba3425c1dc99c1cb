//! What the Xen API answers when it refuses or fails: a code and parameters.

use std::fmt;

pub use crate::generated::errors::FailureKind;

/// A failure that the server tells of: its code and parameters as they were sent.
///
/// [`Failure::kind`] gives the parameters their names.
///
/// ```
/// use xenapi::{Failure, FailureKind};
///
/// let params = ["OpaqueRef:1", "halted", "running"].map(String::from);
/// let failure = Failure::new("VM_BAD_POWER_STATE", params);
/// assert!(matches!(failure.kind(), FailureKind::VmBadPowerState { actual: "running", .. }));
/// assert_eq!(failure.params()[1], "halted");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: String,
    params: Vec<String>,
}

impl Failure {
    /// A failure with this code and these parameters.
    pub fn new(code: impl Into<String>, params: impl Into<Vec<String>>) -> Self {
        Self { code: code.into(), params: params.into() }
    }

    /// The code: `VM_BAD_POWER_STATE`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The parameters in the order they were sent, of any number.
    pub fn params(&self) -> &[String] {
        &self.params
    }

    /// What failed, with the parameters by name. Those that were not sent are empty; those that the
    /// model does not name are only in [`Failure::params`].
    pub fn kind(&self) -> FailureKind<'_> {
        FailureKind::new(&self.code, &self.params)
    }

    /// Whether the same message can succeed later without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        const PASSING: [&str; 9] = [
            "CANNOT_CONTACT_HOST",
            "HOST_IN_EMERGENCY_MODE",
            "HOST_OFFLINE",
            "HOST_STILL_BOOTING",
            "OTHER_OPERATION_IN_PROGRESS",
            "SESSION_INVALID",
            "TOO_BUSY",
            "TOO_MANY_PENDING_TASKS",
            "VDI_IN_USE",
        ];
        PASSING.contains(&self.code.as_str())
    }

    /// What the reader can do about it, where something general can be said.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.kind() {
            FailureKind::SessionAuthenticationFailed { .. } => "check the user name and password",
            FailureKind::HostIsSlave { .. } => "use the address of the pool's master",
            FailureKind::HandleInvalid { .. } => "the object is gone; look it up again by its uuid",
            FailureKind::RbacPermissionDenied { .. } => {
                "log in as a user with a role that allows it"
            }
            FailureKind::OtherOperationInProgress { .. } => "try again when that operation is over",
            FailureKind::NoHostsAvailable {} => {
                "`VM.assert_can_boot_here` says for each host why it cannot"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if self.params.is_empty() {
            return Ok(());
        }
        write!(f, " [{}]", self.params.join(", "))
    }
}

impl std::error::Error for Failure {}

/// Makes the enumeration of the codes that the model has.
macro_rules! error_kinds {
    ($($variant:ident $code:literal { $($param:ident),* },)*) => {
        /// A failure by what it is about, with named parameters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum FailureKind<'a> {
            $(
                #[doc = concat!("`", $code, "`.")]
                #[allow(missing_docs, reason = "the model has names for parameters and no more")]
                $variant { $($param: &'a str),* },
            )*
            /// Any other code.
            Other {
                /// The code.
                code: &'a str,
                /// The parameters.
                params: &'a [String],
            },
        }

        impl<'a> FailureKind<'a> {
            /// Gives the parameters their names; those that were not sent are empty.
            pub(crate) fn new(code: &'a str, params: &'a [String]) -> Self {
                #[allow(unused_mut, unused_variables, reason = "some codes have no parameters")]
                let mut rest = params.iter();
                match code {
                    $(
                        $code => {
                            $(let $param = rest.next().map_or("", String::as_str);)*
                            Self::$variant { $($param),* }
                        }
                    )*
                    _ => Self::Other { code, params },
                }
            }
        }
    };
}

pub(crate) use error_kinds;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: &str, params: &[&str]) -> Failure {
        Failure::new(code, params.iter().map(|&param| param.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn missing_and_extra_parameters_fail_nothing() {
        let short = failure("OTHER_OPERATION_IN_PROGRESS", &["VM"]);
        assert!(matches!(
            short.kind(),
            FailureKind::OtherOperationInProgress { class: "VM", object: "", .. }
        ));
        let long = failure("NO_HOSTS_AVAILABLE", &["a", "b"]);
        assert_eq!(long.kind(), FailureKind::NoHostsAvailable {});
        assert_eq!(long.params(), ["a", "b"]);
    }

    #[test]
    fn codes_that_the_model_does_not_have_are_kept() {
        let failure = failure("SR_BACKEND_FAILURE_9999", &["", "out of luck", ""]);
        assert!(matches!(
            failure.kind(),
            FailureKind::Other { code: "SR_BACKEND_FAILURE_9999", params } if params.len() == 3
        ));
        assert_eq!(failure.to_string(), "SR_BACKEND_FAILURE_9999 [, out of luck, ]");
    }

    #[test]
    fn only_what_passes_by_itself_is_retryable() {
        assert!(failure("HOST_STILL_BOOTING", &[]).is_retryable());
        assert!(!failure("SESSION_AUTHENTICATION_FAILED", &["root", ""]).is_retryable());
        assert!(!failure("VM_BAD_POWER_STATE", &[]).is_retryable());
    }
}
