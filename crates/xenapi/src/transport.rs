//! The way to a server and back: addresses, connections, and HTTP over them.
//!
//! ```text
//! Transport ──slot──▶ idle Connection, or dial ──▶ Stream (TCP, or TLS that was verified)
//! ```
//!
//! Nothing here knows sessions or messages: bytes go out, and a status and bytes come back.

mod connection;
mod deadline;
mod endpoint;
mod pool;
mod stream;

pub use endpoint::{Endpoint, InvalidAddress};

pub(crate) use connection::Response;
pub(crate) use deadline::Deadline;
pub(crate) use pool::{Limits, Post, Transport};
pub(crate) use stream::Stream;
