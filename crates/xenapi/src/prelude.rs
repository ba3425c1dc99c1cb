//! The names that generated code uses.

pub(crate) use jiff::Timestamp;
pub(crate) use serde::de::MapAccess;

pub(crate) use crate::call::{AsyncCall, Call};
pub(crate) use crate::client::Client;
pub(crate) use crate::generated::{class, enums};
pub(crate) use crate::wire::{
    EventBatch, Fields, Map, Ref, Request, ToWire, Value, read, record, skip, with_optional,
};
