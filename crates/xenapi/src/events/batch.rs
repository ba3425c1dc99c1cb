//! A batch of events, read straight into the records of its classes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::any::{AnyRecord, AnyRef};
use crate::generated::class::Class;
use crate::wire::{FromWire, Map, Ref, Value, Wire};

/// What `event.from` answers, with records of type `R`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch<R> {
    pub(crate) events: Vec<Event<R>>,
    /// How many objects of a class there are, of each class that the server counts.
    pub(crate) counts: Vec<(Class, usize)>,
    pub(crate) token: String,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event<R> {
    pub(crate) object: AnyRef,
    pub(crate) sight: Sight<R>,
}

/// What is known of an object after an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sight<R> {
    /// It is there, and this is its record.
    Record(R),
    /// It is there, but the server did not send its record.
    Unseen,
    /// It is gone.
    Gone,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Self { events: Vec::new(), counts: Vec::new(), token: String::new() }
    }
}

impl FromWire for Batch<AnyRecord> {
    fn from_wire<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<AnyRecord>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of events")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut batch = Batch::default();
        while let Some(Wire(name)) = entries.next_key::<Wire<String>>()? {
            match name.as_str() {
                "events" => batch.events = entries.next_value_seed(EventsVisitor)?,
                "valid_ref_counts" => batch.counts = counts(entries.next_value()?),
                "token" => batch.token = crate::wire::read(&mut entries)?,
                _ => crate::wire::skip(&mut entries)?,
            }
        }
        Ok(batch)
    }
}

fn counts(Wire(counts): Wire<Map<String, i64>>) -> Vec<(Class, usize)> {
    let known = counts
        .into_iter()
        .filter_map(|(name, count)| Some((Class::find(&name)?, usize::try_from(count).ok()?)));
    known.collect()
}

struct EventsVisitor;

impl<'de> DeserializeSeed<'de> for EventsVisitor {
    type Value = Vec<Event<AnyRecord>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EventsVisitor {
    type Value = Vec<Event<AnyRecord>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("events")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    /// XML-RPC writes nothing as the empty text.
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        let mut names = ClassNames::default();
        while let Some(event) = items.next_element_seed(EventVisitor(&mut names))? {
            events.extend(event);
        }
        Ok(events)
    }
}

/// Remembers the class that was named last: most events of a large batch are of the same one.
#[derive(Default)]
struct ClassNames {
    name: String,
    class: Option<Class>,
}

impl ClassNames {
    fn find(&mut self, name: &str) -> Option<Class> {
        if self.name != name {
            name.clone_into(&mut self.name);
            self.class = Class::find(name);
        }
        self.class
    }
}

/// Reads one event; there is none of classes that this build does not know.
struct EventVisitor<'n>(&'n mut ClassNames);

impl<'de> DeserializeSeed<'de> for EventVisitor<'_> {
    type Value = Option<Event<AnyRecord>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EventVisitor<'_> {
    type Value = Option<Event<AnyRecord>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut class = None;
        let mut reference = Ref::<()>::null();
        let mut gone = false;
        let mut record = None;
        let mut early = None;
        while let Some(Member(member)) = entries.next_key()? {
            match member {
                Name::Class => {
                    class = entries.next_value_seed(TextSeed(|name: &str| self.0.find(name)))?;
                }
                Name::Operation => {
                    gone = entries.next_value_seed(TextSeed(|name: &str| name == "del"))?;
                }
                Name::Ref => reference = crate::wire::read(&mut entries)?,
                Name::Snapshot => match class {
                    Some(class) => record = entries.next_value_seed(SnapshotSeed(class))?,
                    // No server is known to send it before the class, but nothing forbids it.
                    None => early = Some(entries.next_value::<Value>()?),
                },
                Name::Other => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        let Some(class) = class.filter(|class| crate::any::is_watched(*class)) else {
            return Ok(None);
        };
        if let Some(value) = early {
            record = late(class, &value).map_err(A::Error::custom)?;
        }
        let sight = match record {
            _ if gone => Sight::Gone,
            Some(record) => Sight::Record(record),
            None => Sight::Unseen,
        };
        Ok(Some(Event { object: AnyRef::new(class, reference), sight }))
    }
}

fn late(class: Class, value: &Value) -> Result<Option<AnyRecord>, serde_json::Error> {
    let text = serde_json::to_vec(value)?;
    SnapshotSeed(class).deserialize(&mut serde_json::Deserializer::from_slice(&text))
}

enum Name {
    Class,
    Operation,
    Ref,
    Snapshot,
    Other,
}

struct Member(Name);

impl<'de> serde::Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextSeed(|name: &str| {
            Self(match name {
                "class" => Name::Class,
                "operation" => Name::Operation,
                "ref" => Name::Ref,
                "snapshot" => Name::Snapshot,
                _ => Name::Other,
            })
        }))
    }
}

/// Makes something of a text without keeping it.
struct TextSeed<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for TextSeed<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for TextSeed<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

struct SnapshotSeed(Class);

impl<'de> DeserializeSeed<'de> for SnapshotSeed {
    type Value = Option<AnyRecord>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for SnapshotSeed {
    type Value = Option<AnyRecord>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        AnyRecord::read(self.0, deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class;
    use crate::wire::{Protocol, decode};

    fn json(result: &str) -> Batch<AnyRecord> {
        let body = format!("{{\"jsonrpc\":\"2.0\",\"result\":{result},\"id\":1}}");
        decode(Protocol::JsonRpc2, body.into_bytes()).unwrap().unwrap()
    }

    #[test]
    fn events_are_read_into_the_records_of_their_classes() {
        let batch = json(
            r#"{"events":[
                {"id":"7","timestamp":"0.0","class":"vm","operation":"add","ref":"OpaqueRef:1",
                 "snapshot":{"name_label":"web","power_state":"Running"}},
                {"id":"8","timestamp":"0.0","class":"host_metrics","operation":"mod",
                 "ref":"OpaqueRef:2","snapshot":{"live":true}},
                {"id":"9","timestamp":"0.0","class":"vm","operation":"del","ref":"OpaqueRef:3"},
                {"id":"9","timestamp":"0.0","class":"novelty","operation":"add","ref":"OpaqueRef:4",
                 "snapshot":{"a":[1,2]}},
                {"id":"9","timestamp":"0.0","class":"vm","operation":"mod","ref":"OpaqueRef:5",
                 "snapshot":null}],
               "valid_ref_counts":{"vm":3,"host_metrics":1,"novelty":1},
               "token":"00000000000000000009,00000000000000000000"}"#,
        );
        let [web, metrics, gone, unseen] = batch.events.as_slice() else {
            panic!("{:?}", batch.events)
        };
        let Sight::Record(record) = &web.sight else { panic!("{web:?}") };
        assert_eq!(record.of::<class::Vm>().unwrap().name_label, "web");
        let Sight::Record(record) = &metrics.sight else { panic!("{metrics:?}") };
        assert!(record.of::<class::HostMetrics>().unwrap().live);
        assert_eq!(gone.sight, Sight::Gone);
        assert_eq!(gone.object.of::<class::Vm>(), Some("OpaqueRef:3".into()));
        assert_eq!(unseen.sight, Sight::Unseen);
        assert_eq!(batch.counts, [(Class::HostMetrics, 1), (Class::Vm, 3)]);
        assert_eq!(batch.token, "00000000000000000009,00000000000000000000");
    }

    #[test]
    fn the_order_of_an_events_members_does_not_matter() {
        let early = json(
            r#"{"token":"t","events":[{"snapshot":{"name_label":"web","memory_static_max":7},
                "ref":"OpaqueRef:1","operation":"add","class":"VM"}]}"#,
        );
        let late = json(
            r#"{"token":"t","events":[{"class":"vm","operation":"add","ref":"OpaqueRef:1",
                "snapshot":{"name_label":"web","memory_static_max":7}}]}"#,
        );
        assert_eq!(early, late);
    }

    #[test]
    fn batches_come_by_xml_too() {
        let body = "<methodResponse><params><param><value><struct>
            <member><name>Status</name><value>Success</value></member>
            <member><name>Value</name><value><struct>
            <member><name>events</name><value><array><data><value><struct>
              <member><name>id</name><value>7</value></member>
              <member><name>class</name><value>task</value></member>
              <member><name>operation</name><value>mod</value></member>
              <member><name>ref</name><value>OpaqueRef:1</value></member>
              <member><name>snapshot</name><value><struct>
                <member><name>progress</name><value><double>0.5</double></value></member>
              </struct></value></member></struct></value></data></array></value></member>
            <member><name>valid_ref_counts</name><value><struct>
              <member><name>task</name><value><i4>1</i4></value></member></struct></value></member>
            <member><name>token</name><value>t</value></member>
            </struct></value></member></struct></value></param></params></methodResponse>";
        let batch: Batch<AnyRecord> =
            decode(Protocol::XmlRpc, body.as_bytes().to_vec()).unwrap().unwrap();
        let Sight::Record(record) = &batch.events[0].sight else { panic!("{batch:?}") };
        assert_eq!(record.of::<class::Task>().unwrap().progress.to_bits(), 0.5_f64.to_bits());
        assert_eq!(batch.counts, [(Class::Task, 1)]);
    }
}
