//! The words of `BioXen`: what a VM is asked to be, what it may do, and what became of each run.
//!
//! Nothing here does I/O, starts a task or reads a clock; times are handed in. The backends
//! (`bioxen-basic`) make VMs out of a [`VmSpec`], the worker (`bioxen-worker`) runs Lua in them and
//! speaks [`protocol`], and the library that people add (`bioxen`) joins the two.
//!
//! ```
//! use bioxen_core::{ByteSize, Grants, Limits, VmSpec};
//!
//! let spec = VmSpec::basic("gc-content")?
//!     .grants(Grants::none().read("/data/lambda.fasta"))
//!     .limits(Limits { memory: ByteSize::mib(64).into(), ..Limits::default() });
//! assert_eq!(spec.name.as_str(), "gc-content");
//! # Ok::<(), bioxen_core::InvalidName>(())
//! ```

mod address;
pub mod backend;
mod digest;
mod event;
mod grants;
mod isolation;
mod limits;
mod machine;
mod name;
pub mod protocol;
mod range;
mod record;
mod script;
mod spec;
mod state;
mod value;

pub use address::{CallHomeAddress, InterfaceAddress, InvalidAddress, MacAddress};
pub use bytesize::ByteSize;
pub use digest::Digest;
pub use event::Event;
pub use grants::{Grants, InvalidNetAddress, NetAddress};
pub use isolation::{Isolation, Mechanism, UnknownMechanism};
pub use limits::{InvalidLimit, Limit, Limits, Quantity};
pub use machine::{
    FileCopy, InvalidNetworkSpec, MachineSpec, NetworkSpec, SizeClass, UnknownSizeClass,
};
pub use name::{InvalidName, InvalidPattern, NamePattern, VmName};
pub use range::{AddressRange, InvalidRange};
pub use record::{
    Chunk, CodeFacts, EndedBy, Ending, InterpreterFacts, LuaError, MachineFacts, OutputSize,
    RunContext, RunId, RunRecord, Stream,
};
pub use script::{Script, Source};
pub use spec::{Interpreter, Place, UnknownVmType, VmSpec, VmType};
pub use state::{Health, VmState};
pub use value::Value;
