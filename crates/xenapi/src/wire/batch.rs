//! What `event.from` answers.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::{FromWire, Map, Wire};
use crate::generated::event;

/// Events since a token, and the token to go on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventBatch {
    /// The events, in the order to apply them in.
    pub events: Vec<event::Record>,
    /// How many objects of each class there are, by its name in lower case.
    pub valid_ref_counts: Map<String, i64>,
    /// Where the next call goes on.
    pub token: String,
}

impl FromWire for EventBatch {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = EventBatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of events")
    }

    fn visit_unit<E: Error>(self) -> Result<EventBatch, E> {
        Ok(EventBatch::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<EventBatch, A::Error> {
        let mut batch = EventBatch::default();
        while let Some(Wire(name)) = entries.next_key::<Wire<String>>()? {
            match name.as_str() {
                "events" => batch.events = super::read(&mut entries)?,
                "valid_ref_counts" => batch.valid_ref_counts = super::read(&mut entries)?,
                "token" => batch.token = super::read(&mut entries)?,
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(batch)
    }
}
