//! Points in time and numbers, in every form that servers have written them.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// The form that servers of today write: `19700101T00:00:00Z`.
pub(super) fn text(time: Timestamp) -> String {
    Offset::UTC.to_datetime(time).strftime("%Y%m%dT%H:%M:%SZ").to_string()
}

/// Reads a date with or without dashes, a time with colons, perhaps a fraction, and a zone as `Z`,
/// `±hh:mm`, `±hhmm` or left out, which is UTC. The empty text is the epoch, which means "never".
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    if text.is_empty() {
        return Some(Timestamp::UNIX_EPOCH);
    }
    let (date, rest) = text.split_once(['T', ' '])?;
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    let moment = parse_date(date)?.to_datetime(parse_clock(clock)?);
    parse_zone(zone)?.to_timestamp(moment).ok()
}

fn parse_date(text: &str) -> Option<Date> {
    let (year, month, day) = match text.len() {
        8 => (text.get(..4)?, text.get(4..6)?, text.get(6..)?),
        10 if text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-' => {
            (text.get(..4)?, text.get(5..7)?, text.get(8..)?)
        }
        _ => return None,
    };
    Date::new(digits(year)?.try_into().ok()?, small(month)?, small(day)?).ok()
}

fn parse_clock(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    // A leap second is the last one of its minute.
    let second = small(second)?.min(59);
    Time::new(small(hour)?, small(minute)?, second, nanoseconds(fraction)?).ok()
}

fn nanoseconds(fraction: &str) -> Option<i32> {
    let fraction = fraction.get(..9).unwrap_or(fraction);
    if fraction.is_empty() {
        return Some(0);
    }
    let missing = u32::try_from(9 - fraction.len()).ok()?;
    Some(digits(fraction)? * 10_i32.pow(missing))
}

fn parse_zone(text: &str) -> Option<Offset> {
    if matches!(text, "" | "Z") {
        return Some(Offset::UTC);
    }
    let (sign, rest) = text.split_at_checked(1)?;
    let rest = rest.replace(':', "");
    let (hours, minutes) = match rest.len() {
        2 => (rest.as_str(), "0"),
        4 => rest.split_at_checked(2)?,
        _ => return None,
    };
    let seconds = digits(hours)? * 3600 + digits(minutes)? * 60;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok()
}

fn digits(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn small(text: &str) -> Option<i8> {
    digits(text)?.try_into().ok()
}

/// The text for a number that JSON does not have.
pub(super) fn odd_float(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

/// Reads a number from text, in the spellings of several writers.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    match text.trim() {
        "" => Some(0.0),
        // What mending an answer leaves of the words that JSON lacks.
        "N" => Some(f64::NAN),
        "I" => Some(f64::INFINITY),
        "-I" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_known_form_is_read() {
        let expected: Timestamp = "2026-08-21T13:04:05Z".parse().unwrap();
        for text in [
            "20260821T13:04:05Z",
            "2026-08-21T13:04:05Z",
            "20260821T13:04:05",
            "20260821T15:04:05+02:00",
            "20260821T11:34:05-0130",
            "2026-08-21T13:04:05.000Z",
            "20260821T13:04:05.0Z",
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        assert_eq!(parse("20260821T13:04:05.5Z").unwrap().subsec_millisecond(), 500);
        assert_eq!(parse(""), Some(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["today", "20261321T00:00:00Z", "20260821", "20260821T1:2:3Z", "é0260821T00:00:00Z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_read_in_any_spelling() {
        for text in ["NaN", "nan"] {
            assert!(parse_float(text).unwrap().is_nan());
        }
        for text in ["+Inf", "Infinity", "inf"] {
            assert_eq!(parse_float(text), Some(f64::INFINITY), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_again(seconds in -60_000_000_000_i64..250_000_000_000) {
            let time = Timestamp::from_second(seconds).unwrap();
            prop_assert_eq!(parse(&text(time)), Some(time));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
