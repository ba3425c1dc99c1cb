//! What travels: values, records, requests and answers, as JSON-RPC or XML-RPC. No I/O.
//!
//! ```text
//! Request ──▶ encode(Protocol) ──▶ bytes ──▶ server ──▶ bytes ──▶ decode(Protocol) ──▶ R or Failure
//! ```
//!
//! Every type of the data model has [`FromWire`] and [`ToWire`]; records get theirs from the codec
//! tables that are generated. Decoding forgives what servers of different ages do differently, and
//! names the field in what it cannot forgive.

mod answer;
mod batch;
mod decode;
mod encode;
mod enumeration;
mod lenient;
mod map;
mod pieces;
mod record;
mod reference;
mod request;
mod time;
mod value;
mod xml;

pub use answer::{DecodeError, decode, task_result};
pub use batch::EventBatch;
pub use decode::{FromWire, MapKey, Wire};
pub use encode::{ToWire, encode};
pub use map::Map;
pub use pieces::Pieces;
pub use record::Fields;
pub use reference::{Object, Recorded, Ref};
pub use request::{Effect, Protocol, Request};
pub use value::Value;

pub(crate) use answer::mend_odd_floats;
pub(crate) use enumeration::{class_enum, wire_enum};
pub(crate) use lenient::text_from_wire;
pub(crate) use record::{constructor, read, record, record_from_wire, serialize_record, skip};
pub(crate) use request::with_optional;
pub(crate) use xml::{Token, Tokens, XmlError};

pub(crate) use crate::failure::error_kinds;
