//! The way to a server and back: addresses, connections, and HTTP over them.
//!
//! ```text
//! Transport ──slot──▶ idle Connection, Lane or dial ──▶ Stream (TCP, or TLS that was verified)
//! ```
//!
//! Nothing here knows sessions or messages: bytes go out, and a status and bytes come back.

mod answers;
mod connection;
mod deadline;
mod endpoint;
mod head;
mod lane;
mod pool;
mod stream;

pub use endpoint::{Endpoint, InvalidAddress};

pub(crate) use answers::Response;
#[cfg(feature = "fuzzing")]
pub(crate) use answers::receive_in;
pub(crate) use deadline::Deadline;
pub(crate) use head::{LARGEST_HEAD, header, read_head};
pub(crate) use pool::{Limits, Post, Transport};
pub(crate) use stream::Stream;
