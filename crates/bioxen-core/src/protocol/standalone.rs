//! What a controller and a worker that runs by itself say before they speak the worker protocol.
//!
//! No zygote forks workers in a guest: there, a worker is a program that is started for one VM, at the
//! far end of a byte stream. It is told what it is to be, finds out on the spot what the paths mean,
//! says so, holds itself in and goes on as every worker does.
//!
//! ```text
//! controller  ──▶ Order
//! worker      ──▶ Accepted, then Sandboxed, Hello, …      or Refused, and it exits
//! controller  ──▶ the shim, where another interpreter was ordered; then Configure, Evaluate, …
//! ```
//!
//! Frames are those of the worker protocol. A worker reads nothing beyond the order before it has
//! answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{VERSION, decode};
use crate::backend::{StartError, VersionMismatch};
use crate::{Grants, Interpreter, Limits, VmSpec};

/// The largest order that a worker reads.
pub const LARGEST_ORDER: usize = 1 << 20;

/// What a controller says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// What the worker is to be.
    Order(Order),
}

/// What a worker is to be.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`], as the controller knows it. It stays the first field for good.
    pub version: u32,
    /// The interpreter, as a path or as a name to look up where the worker is; `None` is the built-in
    /// one.
    pub program: Option<PathBuf>,
    /// What the worker may touch, with paths as they were given.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// The granted variables with their values, which the controller knows.
    pub environment: BTreeMap<String, String>,
    /// The directory that relative paths start from; `None` is the one that the worker is started in.
    pub working_directory: Option<PathBuf>,
}

impl Order {
    /// The order for a VM's worker, with the values of the variables that were granted.
    pub fn of(spec: &VmSpec, environment: BTreeMap<String, String>) -> Self {
        Self {
            version: VERSION,
            program: match &spec.interpreter {
                Interpreter::Embedded => None,
                Interpreter::Program(program) => Some(program.clone()),
            },
            grants: spec.grants.clone(),
            limits: spec.effective_limits(),
            environment,
            working_directory: spec.working_directory.clone(),
        }
    }

    /// Reads the first frame's payload.
    ///
    /// # Errors
    ///
    /// When it is no order, or one of another version: that is said whatever else it holds.
    pub fn read(payload: &[u8]) -> Result<Self, Refusal> {
        let no_order = |error: super::FrameError| Refusal::NoOrder { reason: error.to_string() };
        let Versioned::Order(Version(theirs)) = decode(payload).map_err(no_order)?;
        if theirs != VERSION {
            return Err(Refusal::Version { worker: VERSION, controller: theirs });
        }
        let Opening::Order(order) = decode(payload).map_err(no_order)?;
        Ok(order)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values of variables may be secrets.
        let names: Vec<_> = self.environment.keys().collect();
        f.debug_struct("Order")
            .field("version", &self.version)
            .field("program", &self.program)
            .field("grants", &self.grants)
            .field("limits", &self.limits)
            .field("environment", &names)
            .field("working_directory", &self.working_directory)
            .finish()
    }
}

/// An order of any version.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Versioned {
    Order(Version),
}

/// The first field of an order, whatever follows it.
struct Version(u32);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an order, which begins with its version")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Version, A::Error> {
                let version = fields
                    .next_element()?
                    .ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                while fields.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Version(version))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It becomes what was ordered.
    Accepted(Accepted),
    /// It does not, and exits.
    Refused(Refusal),
}

/// The order as the worker understood it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The worker's process where it runs, the first of its process group.
    pub process: u32,
    /// Operating system and processor: `linux-x86_64`.
    pub platform: String,
    /// The interpreter, where it is a program.
    pub program: Option<FoundProgram>,
    /// The grants, with paths that are absolute and free of links.
    pub grants: Grants,
    /// The directory that relative paths start from.
    pub working_directory: PathBuf,
}

/// An interpreter that a worker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundProgram {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself: `Lua 5.1.5`.
    pub version: String,
}

/// Why a worker does not become what was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// What it read first is no order.
    #[error("it was sent no order: {reason}")]
    NoOrder {
        /// What was seen instead.
        reason: String,
    },
    /// The controller speaks another version of the protocol.
    #[error(
        "it speaks version {worker} of the protocol and was sent an order of version {controller}"
    )]
    Version {
        /// The worker's.
        worker: u32,
        /// The controller's.
        controller: u32,
    },
    /// A granted path, or the working directory, is not there.
    #[error("path `{path}` cannot be granted: {reason}")]
    Path {
        /// The path as it was given.
        path: String,
        /// What Linux calls the error.
        code: Option<i32>,
        /// What the system says.
        reason: String,
    },
    /// The interpreter was not found, or is none.
    #[error("interpreter `{program}` cannot be used: {reason}")]
    Interpreter {
        /// As it was asked for.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system did not let it become a worker.
    #[error("it could not set itself up: {reason}")]
    SetUp {
        /// What the system says.
        reason: String,
    },
}

impl Refusal {
    /// A path that cannot be granted.
    pub fn path(path: &std::path::Path, error: &io::Error) -> Self {
        let (path, code) = (path.display().to_string(), error.raw_os_error());
        Self::Path { path, code, reason: error.to_string() }
    }

    /// The same, as whoever ordered the VM hears it.
    pub fn into_start_error(self, vm: &str) -> StartError {
        match self {
            Self::Path { path, code, reason } => {
                let on_linux = code.filter(|_| cfg!(target_os = "linux"));
                let source =
                    on_linux.map_or_else(|| io::Error::other(reason), io::Error::from_raw_os_error);
                StartError::Path { path, vm: vm.to_owned(), source }
            }
            Self::Interpreter { program, reason } => StartError::Interpreter { program, reason },
            Self::Version { worker, controller } => {
                let mismatch = VersionMismatch { theirs: worker, ours: controller };
                StartError::Worker { vm: vm.to_owned(), reason: mismatch.to_string() }
            }
            other @ (Self::NoOrder { .. } | Self::SetUp { .. }) => {
                StartError::Worker { vm: vm.to_owned(), reason: other.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HEADER_LENGTH, encode};
    use super::*;

    fn order() -> Order {
        let grants = Grants::none().read("data").env("A");
        let spec = VmSpec::basic("vm").unwrap().grants(grants).working_directory("/srv");
        let spec = spec.interpreter(Interpreter::parse("5.1"));
        Order::of(&spec, [("A".to_owned(), "b".to_owned())].into())
    }

    #[test]
    fn an_order_survives_the_wire() {
        let frame = encode(&Opening::Order(order()));
        assert_eq!(Order::read(&frame[HEADER_LENGTH..]), Ok(order()));
    }

    #[test]
    fn an_order_of_a_newer_version_is_known_for_one_whatever_it_holds() {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Newer {
            Order(u32, [u8; 2], BTreeMap<u8, &'static str>),
        }
        let frame = encode(&Newer::Order(VERSION + 1, [1, 2], [(3, "x")].into()));
        let refused = Refusal::Version { worker: VERSION, controller: VERSION + 1 };
        assert_eq!(Order::read(&frame[HEADER_LENGTH..]), Err(refused));
    }

    #[test]
    fn what_is_no_order_is_refused_by_what_was_seen() {
        for bytes in [&b"GET / HTTP/1.1"[..], b"", b"\x81\xa5order\x90", b"\x81\xa5order\x91\x01"] {
            let refusal = Order::read(bytes).unwrap_err();
            assert!(matches!(refusal, Refusal::NoOrder { .. }), "{refusal}");
        }
    }

    #[test]
    fn a_missing_path_is_the_error_that_it_is_on_this_machine_too() {
        let missing = io::Error::from_raw_os_error(2);
        let refusal = Refusal::path("/data".as_ref(), &missing);
        let StartError::Path { path, source, .. } = refusal.into_start_error("vm") else {
            panic!("another error");
        };
        assert_eq!(path, "/data");
        assert!(!cfg!(target_os = "linux") || source.kind() == io::ErrorKind::NotFound);
    }
}
