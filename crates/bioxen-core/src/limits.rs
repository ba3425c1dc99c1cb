//! What a VM and each run in it may use at most.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// A bound, or the explicit absence of one. Written as the bound or as `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit<T> {
    /// No more than this.
    Of(T),
    /// No bound.
    Unlimited,
}

impl<T: Copy> Limit<T> {
    /// The bound, where there is one.
    pub fn bound(self) -> Option<T> {
        match self {
            Self::Of(bound) => Some(bound),
            Self::Unlimited => None,
        }
    }
}

impl<T> From<T> for Limit<T> {
    fn from(bound: T) -> Self {
        Self::Of(bound)
    }
}

/// The limits of a VM. All are on by default; lifting one is spelled out as [`Limit::Unlimited`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Time from a run's start to its end. Default 60 s.
    #[serde(rename = "wall_time_us")]
    pub wall_time: Limit<Duration>,
    /// Processor time of one run, children included. Default 60 s.
    #[serde(rename = "cpu_time_us")]
    pub cpu_time: Limit<Duration>,
    /// Memory that Lua holds in the VM at any moment. Default 256 MiB.
    #[serde(rename = "memory_bytes")]
    pub memory: Limit<ByteSize>,
    /// Standard output, standard error and returned values of one run together. Default 16 MiB.
    #[serde(rename = "output_bytes")]
    pub output: Limit<ByteSize>,
    /// Processes that the VM may have besides its own at one moment. Default 16.
    ///
    /// Counts only where spawning was granted; without that grant no process can be started.
    pub child_processes: Limit<u32>,
    /// Files that the VM's process may have open, those of the worker itself included. Default 64.
    pub open_files: Limit<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time: Limit::Of(Duration::from_mins(1)),
            cpu_time: Limit::Of(Duration::from_mins(1)),
            memory: Limit::Of(ByteSize::mib(256)),
            output: Limit::Of(ByteSize::mib(16)),
            child_processes: Limit::Of(16),
            open_files: Limit::Of(64),
        }
    }
}

impl Limits {
    /// No limit at all: for code that you trust as you trust your shell.
    pub fn unlimited() -> Self {
        Self {
            wall_time: Limit::Unlimited,
            cpu_time: Limit::Unlimited,
            memory: Limit::Unlimited,
            output: Limit::Unlimited,
            child_processes: Limit::Unlimited,
            open_files: Limit::Unlimited,
        }
    }
}

/// Why a text is not a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}, nor `unlimited`")]
pub struct InvalidLimit {
    given: String,
    expected: &'static str,
}

/// A quantity that can be limited: how it is written, and its number in records.
pub trait Quantity: Copy {
    /// What the text should have been, for the error message.
    const EXPECTED: &'static str;
    /// Reads what a person wrote.
    fn parse(text: &str) -> Option<Self>;
    /// Writes it for a person.
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// The number that stands for it in records.
    fn to_number(self) -> u64;
    /// The quantity behind a number from a record, unless it is too large.
    fn from_number(number: u64) -> Option<Self>;
}

impl Quantity for Duration {
    const EXPECTED: &'static str = "a duration such as `500ms`, `5s` or `2m`";
    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero())
    }
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_duration(self), f)
    }
    fn to_number(self) -> u64 {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX)
    }
    fn from_number(number: u64) -> Option<Self> {
        Some(Self::from_micros(number))
    }
}

impl Quantity for ByteSize {
    const EXPECTED: &'static str = "a size such as `64MiB` or `2GiB`";
    fn parse(text: &str) -> Option<Self> {
        text.parse::<Self>().ok().filter(|size| size.as_u64() > 0)
    }
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.display().iec(), f)
    }
    fn to_number(self) -> u64 {
        self.as_u64()
    }
    fn from_number(number: u64) -> Option<Self> {
        Some(Self::b(number))
    }
}

impl Quantity for u32 {
    const EXPECTED: &'static str = "a whole number";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self, f)
    }
    fn to_number(self) -> u64 {
        self.into()
    }
    fn from_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl<T: Quantity> FromStr for Limit<T> {
    type Err = InvalidLimit;
    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        T::parse(text)
            .map(Self::Of)
            .ok_or_else(|| InvalidLimit { given: text.to_owned(), expected: T::EXPECTED })
    }
}

impl<T: Quantity> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(bound) => bound.write(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// How a limit stands in JSON and on the wire: its number, or the word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Number(u64),
    Word(String),
}

impl<T: Quantity> Serialize for Limit<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(bound) => serializer.serialize_u64(bound.to_number()),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de, T: Quantity> Deserialize<'de> for Limit<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::Number(number) => T::from_number(number)
                .map(Self::Of)
                .ok_or_else(|| serde::de::Error::custom(format!("limit {number} is too large"))),
            Stored::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_on_by_default() {
        let limits = Limits::default();
        assert_eq!(limits.wall_time.to_string(), "1m");
        assert_eq!(limits.memory.to_string(), "256.0 MiB");
        assert_eq!(limits.child_processes, Limit::Of(16));
    }

    #[test]
    fn a_limit_is_lifted_only_by_the_word_unlimited() {
        assert_eq!("unlimited".parse::<Limit<Duration>>(), Ok(Limit::Unlimited));
        assert_eq!("64MiB".parse::<Limit<ByteSize>>(), Ok(Limit::Of(ByteSize::mib(64))));
        for bad in ["", "none", "0s", "-1s", "5 parsecs"] {
            assert!(bad.parse::<Limit<Duration>>().is_err(), "{bad}");
        }
        let error = "lots".parse::<Limit<ByteSize>>().unwrap_err().to_string();
        assert_eq!(error, "`lots` is not a size such as `64MiB` or `2GiB`, nor `unlimited`");
    }

    #[test]
    fn limits_survive_a_round_trip_through_json() {
        for limits in [Limits::default(), Limits::unlimited()] {
            let json = serde_json::to_string(&limits).unwrap();
            assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits, "{json}");
        }
    }
}
