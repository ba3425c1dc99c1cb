//! Readers of single values that accept what servers of different ages write.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::time;

/// Reads a type that any text is a value of.
pub(crate) fn text_from_wire<'de, T: Default, D: Deserializer<'de>>(
    deserializer: D,
    read: impl FnOnce(&str) -> T,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(TextVisitor::new("text", |text: &str| Some(read(text))))
}

/// Reads what is written as text.
pub(super) struct TextVisitor<F> {
    expected: &'static str,
    read: F,
}

impl<F> TextVisitor<F> {
    pub(super) fn new(expected: &'static str, read: F) -> Self {
        Self { expected, read }
    }
}

impl<T: Default, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let expected = self.expected;
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &expected))
    }
}

/// Reads whole numbers, also from text and from floats without a fraction.
pub(super) struct IntVisitor;

impl Visitor<'_> for IntVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 64 bits")
    }

    fn visit_unit<E: Error>(self) -> Result<i64, E> {
        Ok(0)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        value.try_into().map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<i64, E> {
        // Below 2^53 a float holds every whole number exactly.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || value.abs() > EXACT {
            return Err(E::invalid_value(Unexpected::Float(value), &self));
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        Ok(value as i64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        match text.trim() {
            "" => Ok(0),
            trimmed => trimmed.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

/// Reads numbers, also from text and in the spellings of those that JSON lacks.
pub(super) struct FloatVisitor;

impl Visitor<'_> for FloatVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(0.0)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    #[expect(clippy::cast_precision_loss, reason = "a float is what was asked for")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "a float is what was asked for")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        time::parse_float(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Reads truth values, also from 0 and 1.
pub(super) struct BoolVisitor;

impl Visitor<'_> for BoolVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(E::invalid_value(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.visit_i64(value.try_into().unwrap_or(i64::MAX))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

/// Reads points in time, also from seconds since the epoch.
pub(super) struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a point in time")
    }

    fn visit_unit<E: Error>(self) -> Result<Timestamp, E> {
        Ok(Timestamp::UNIX_EPOCH)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Timestamp, E> {
        Timestamp::from_second(value)
            .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Timestamp, E> {
        self.visit_i64(value.try_into().unwrap_or(i64::MAX))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Timestamp, E> {
        let time = std::time::Duration::try_from_secs_f64(value.abs()).ok();
        let time = time.and_then(|time| jiff::SignedDuration::try_from(time).ok());
        time.map(|time| if value < 0.0 { -time } else { time })
            .and_then(|time| Timestamp::from_duration(time).ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
        // The time of an event is a number, and that is sent as text.
        match (time::parse(text), text.parse()) {
            (Some(time), _) => Ok(time),
            (None, Ok(seconds)) => self.visit_f64(seconds),
            (None, Err(_)) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FromWire;
    use super::*;

    #[test]
    fn the_time_of_an_event_is_read_as_servers_write_it() {
        for text in ["\"0.0\"", "\"\"", "0", "0.0", "\"19700101T00:00:00Z\""] {
            let mut reader = serde_json::Deserializer::from_str(text);
            assert_eq!(Timestamp::from_wire(&mut reader).unwrap(), Timestamp::UNIX_EPOCH, "{text}");
        }
        let mut reader = serde_json::Deserializer::from_str("\"soon\"");
        assert!(Timestamp::from_wire(&mut reader).is_err());
    }
}
