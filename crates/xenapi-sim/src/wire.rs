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
    pub(crate) fn encode(&self, outcome: &Result<Value, ApiError>) -> Vec<u8> {
        match self {
            Self::Json1(id) => json::encode_1(id, outcome),
            Self::Json2(id) => json::encode_2(id, outcome),
            Self::Xml => xml::encode(outcome),
            Self::BareXml => xml::encode_bare(outcome),
        }
    }
}

/// Why a body is no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);
