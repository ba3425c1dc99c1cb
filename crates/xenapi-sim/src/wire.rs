//! The two ways in which calls and answers are written: JSON-RPC and XML-RPC.

pub(crate) mod json;
pub(crate) mod xml;

use crate::error::ApiError;
use crate::value::Value;

/// A call, as it came over either wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// The method's name as it was sent.
    pub(crate) method: String,
    /// The parameters, the session among them.
    pub(crate) params: Vec<serde_json::Value>,
    /// How the answer must be written.
    pub(crate) wire: Wire,
}

/// How an answer is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wire {
    /// JSON-RPC 1.0, for the request with this id.
    Json1(serde_json::Value),
    /// JSON-RPC 2.0, for the request with this id.
    Json2(serde_json::Value),
    /// XML-RPC.
    Xml,
    /// XML-RPC, with the value as it is: `system.listMethods`.
    BareXml,
}

impl Wire {
    /// The content type of answers.
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json1(_) | Self::Json2(_) => "application/json",
            Self::Xml | Self::BareXml => "text/xml",
        }
    }

    /// Writes an answer.
    pub(crate) fn write(&self, out: &mut impl Sink, outcome: &Result<Value, ApiError>) {
        match self {
            Self::Json1(id) => json::encode_1(out, id, outcome),
            Self::Json2(id) => json::encode_2(out, id, outcome),
            Self::Xml => xml::encode(out, outcome),
            Self::BareXml => xml::encode_bare(out, outcome),
        }
    }

    /// An answer as bytes.
    pub(crate) fn encode(&self, outcome: &Result<Value, ApiError>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out, outcome);
        out
    }
}

/// Where answers are written to.
pub(crate) trait Sink {
    /// Takes one byte.
    fn push(&mut self, byte: u8);

    /// Takes these bytes.
    fn extend_from_slice(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn push(&mut self, byte: u8) {
        Vec::push(self, byte);
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        Vec::extend_from_slice(self, bytes);
    }
}

/// Counts bytes, and keeps none.
#[derive(Debug, Default)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    fn push(&mut self, _: u8) {
        self.0 += 1;
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Sends bytes on in pieces, as fast as they are taken.
pub(crate) struct Pieces {
    sender: tokio::sync::mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Pieces {
    const SIZE: usize = 128 * 1024;

    /// Sends pieces here. Must be written to where waiting is allowed.
    pub(crate) fn new(sender: tokio::sync::mpsc::Sender<Vec<u8>>) -> Self {
        Self { sender, piece: Vec::with_capacity(Self::SIZE + 4096) }
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) {
        self.send();
    }

    fn send(&mut self) {
        let next = Vec::with_capacity(Self::SIZE + 4096);
        // Nobody takes it when the client has gone: the rest is written for nothing.
        let _ = self.sender.blocking_send(std::mem::replace(&mut self.piece, next));
    }
}

impl Sink for Pieces {
    fn push(&mut self, byte: u8) {
        self.piece.push(byte);
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= Self::SIZE {
            self.send();
        }
    }
}

/// Why a body is no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);
