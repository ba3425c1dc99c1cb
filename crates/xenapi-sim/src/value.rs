//! Values of the Xen API as the pool holds them: small, and cheap to clone.

use std::fmt;
use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use crate::database::Row;

/// Text that is shared by all who hold it.
pub(crate) type Text = Arc<str>;

/// A reference to an object: `OpaqueRef:` and a uuid of its own, or the null reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ref(pub(crate) Uuid);

impl Ref {
    /// The reference to nothing.
    pub(crate) const NULL: Self = Self(Uuid::nil());

    /// Whether it refers to nothing.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_nil()
    }

    /// Reads a reference as clients write them; the empty text and `NULL` are null references too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "NULL" | "OpaqueRef:NULL" => Some(Self::NULL),
            _ => Uuid::try_parse(text.strip_prefix("OpaqueRef:")?).ok().map(Self),
        }
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() {
            f.write_str("OpaqueRef:NULL")
        } else {
            write!(f, "OpaqueRef:{}", self.0.hyphenated())
        }
    }
}

/// A value of a field, an argument or a result.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing.
    Void,
    /// Text, or a value of an enumeration.
    String(Text),
    /// A uuid that stands for its text.
    Uuid(Uuid),
    /// A whole number.
    Int(i64),
    /// A count that XML writes as `<i4>`.
    Count(i32),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Seconds since 1970.
    Time(i64),
    /// A reference.
    Ref(Ref),
    /// Any number of values.
    Set(Arc<Vec<Value>>),
    /// Values by keys, in the order in which the keys came.
    Map(Arc<Vec<(Value, Value)>>),
    /// Members by name.
    Struct(Arc<Vec<(&'static str, Value)>>),
    /// An object with all its fields.
    Record(Arc<Row>),
    /// Objects by reference.
    Records(Arc<Vec<Arc<Row>>>),
}

static EMPTY: LazyLock<Text> = LazyLock::new(|| "".into());
static NOTHING: LazyLock<Arc<Vec<Value>>> = LazyLock::new(Arc::default);
static NO_ENTRIES: LazyLock<Arc<Vec<(Value, Value)>>> = LazyLock::new(Arc::default);

impl Value {
    /// Text; the empty one takes no memory of its own.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self::String(if text.is_empty() { EMPTY.clone() } else { text.into() })
    }

    /// A set of these.
    pub(crate) fn set(items: Vec<Self>) -> Self {
        Self::Set(if items.is_empty() { NOTHING.clone() } else { Arc::new(items) })
    }

    /// A set of these texts.
    pub(crate) fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::set(items.into_iter().map(Self::text).collect())
    }

    /// A set of these references.
    pub(crate) fn refs(items: impl IntoIterator<Item = Ref>) -> Self {
        Self::set(items.into_iter().map(Self::Ref).collect())
    }

    /// A map of these entries.
    pub(crate) fn map(entries: Vec<(Self, Self)>) -> Self {
        Self::Map(if entries.is_empty() { NO_ENTRIES.clone() } else { Arc::new(entries) })
    }

    /// A map of texts to texts.
    pub(crate) fn text_map<K: AsRef<str>, V: AsRef<str>>(
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::map(entries.into_iter().map(|(k, v)| (Self::text(k), Self::text(v))).collect())
    }

    /// A struct of these members.
    pub(crate) fn members(members: Vec<(&'static str, Self)>) -> Self {
        Self::Struct(Arc::new(members))
    }

    /// Whether this is so much that it is better written in pieces.
    pub(crate) fn is_large(&self) -> bool {
        const MANY: usize = 256;
        match self {
            Self::Records(rows) => rows.len() > MANY,
            Self::Struct(members) => members.iter().any(|(_, value)| value.items().len() > MANY),
            _ => false,
        }
    }

    /// The text, where this is text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The reference; null where this is none.
    pub(crate) fn as_ref(&self) -> Ref {
        if let Self::Ref(reference) = self { *reference } else { Ref::NULL }
    }

    /// The number; 0 where this is none.
    pub(crate) fn as_int(&self) -> i64 {
        if let Self::Int(number) = self { *number } else { 0 }
    }

    /// The truth; false where this is none.
    pub(crate) fn as_bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The items of a set; none where this is no set.
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::Set(items) = self { items } else { &[] }
    }

    /// The entries of a map; none where this is no map.
    pub(crate) fn entries(&self) -> &[(Self, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The references of a set of them.
    pub(crate) fn ref_items(&self) -> impl Iterator<Item = Ref> + '_ {
        self.items().iter().map(Self::as_ref)
    }

    /// The texts of a set of them.
    pub(crate) fn text_items(&self) -> Vec<&str> {
        self.items().iter().filter_map(Self::as_str).collect()
    }

    /// The text at `key` in a map of texts.
    pub(crate) fn at(&self, key: &str) -> Option<&str> {
        let entry = self.entries().iter().find(|(name, _)| name.as_str() == Some(key));
        entry.and_then(|(_, value)| value.as_str())
    }

    /// This map with `value` at `key`.
    pub(crate) fn with(&self, key: Self, value: Self) -> Self {
        let mut entries = self.entries().to_vec();
        match entries.iter_mut().find(|(name, _)| *name == key) {
            Some(entry) => entry.1 = value,
            None => entries.push((key, value)),
        }
        Self::map(entries)
    }

    /// This map without `key`.
    pub(crate) fn without(&self, key: &Self) -> Self {
        Self::map(self.entries().iter().filter(|(name, _)| name != key).cloned().collect())
    }

    /// How the value is written as a map's key, in a task's result and in queries.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::String(text) => text.to_string(),
            Self::Uuid(uuid) => uuid.hyphenated().to_string(),
            Self::Int(number) => number.to_string(),
            Self::Count(number) => number.to_string(),
            Self::Float(number) => float_text(*number),
            Self::Bool(truth) => truth.to_string(),
            Self::Time(seconds) => time_text(*seconds),
            Self::Ref(reference) => reference.to_string(),
            Self::Void
            | Self::Set(_)
            | Self::Map(_)
            | Self::Struct(_)
            | Self::Record(_)
            | Self::Records(_) => String::new(),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Void, Self::Void) => true,
            (Self::String(one), Self::String(two)) => one == two,
            (Self::Uuid(one), Self::Uuid(two)) => one == two,
            (Self::Int(one) | Self::Time(one), Self::Int(two) | Self::Time(two)) => one == two,
            (Self::Count(one), Self::Count(two)) => one == two,
            (Self::Float(one), Self::Float(two)) => one.to_bits() == two.to_bits(),
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Ref(one), Self::Ref(two)) => one == two,
            (Self::Set(one), Self::Set(two)) => one == two,
            (Self::Map(one), Self::Map(two)) => one == two,
            (Self::Struct(one), Self::Struct(two)) => one == two,
            (Self::Record(one), Self::Record(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl From<Ref> for Value {
    fn from(reference: Ref) -> Self {
        Self::Ref(reference)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// A float with a point or an exponent, always.
pub(crate) fn float_text(number: f64) -> String {
    if number.is_finite() { format!("{number:?}") } else { "0.0".into() }
}

/// A time as the server writes it: `19700101T00:00:00Z`.
pub(crate) fn time_text(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a time: a date with dashes or without, an optional fraction, and a zone or none for UTC.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let digits: String = date.chars().filter(|letter| *letter != '-').collect();
    let number = |text: &str| -> Option<i64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    if digits.len() != 8 || !digits.is_ascii() {
        return None;
    }
    let (year, month, day) = (number(&digits[..4])?, number(&digits[4..6])?, number(&digits[6..])?);
    let zone = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone);
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let second = number(parts.next()?.split('.').next()?)?;
    let offset = match zone {
        "" | "Z" => 0,
        _ => {
            let digits = zone.get(1..)?.replace(':', "");
            let minutes = number(digits.get(..2)?)? * 60 + number(digits.get(2..4)?)?;
            if zone.starts_with('-') { -minutes * 60 } else { minutes * 60 }
        }
    };
    let known = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    known.then(|| days_to(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// The civil date of a day counted from 1970.
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day counted from 1970 of a civil date.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_takes_24_bytes() {
        assert_eq!(size_of::<Value>(), 24);
    }

    #[test]
    fn times_are_written_and_read_alike() {
        for seconds in [0, 951_782_399, 1_709_164_800, 1_787_654_321, 4_102_444_800] {
            assert_eq!(parse_time(&time_text(seconds)), Some(seconds));
        }
        assert_eq!(time_text(0), "19700101T00:00:00Z");
        assert_eq!(parse_time("2026-08-21T10:00:00.5+0200"), parse_time("20260821T08:00:00Z"));
        assert_eq!(parse_time("20260821T08:00:00"), parse_time("20260821T08:00:00Z"));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn references_are_read_as_they_are_written() {
        let reference = Ref(Uuid::from_u128(7));
        assert_eq!(Ref::parse(&reference.to_string()), Some(reference));
        assert_eq!(Ref::parse("OpaqueRef:NULL"), Some(Ref::NULL));
        assert_eq!(Ref::parse(""), Some(Ref::NULL));
        assert_eq!(Ref::parse("Ref:7"), None);
    }
}
