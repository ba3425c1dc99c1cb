//! Quantities as people read them, and what a script wrote as text.

use std::time::Duration;

use bioxen::{ByteSize, Value};
use jiff::Timestamp;

/// A duration in three digits or so: `840 µs`, `1.23 ms`, `45.6 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1e-3 {
        format!("{} µs", duration.as_micros())
    } else if seconds < 0.01 {
        format!("{:.2} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// An age in its two largest units: `3days 4h`, `12s`.
pub(crate) fn age(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let parts: Vec<&str> = text.split(' ').take(2).collect();
    parts.join(" ")
}

/// A size in the unit that suits it: `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// What a measurement came to, or a dash where it is unknown.
pub(crate) fn or_dash<T>(measured: Option<T>, show: impl FnOnce(T) -> String) -> String {
    measured.map_or_else(|| "-".to_owned(), show)
}

/// A time, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%F %H:%M:%S UTC").to_string()
}

/// A returned value on a line of its own: a string as its bytes, anything else in Lua notation.
pub(crate) fn value_line(value: &Value) -> Vec<u8> {
    let mut line = match value {
        Value::String(bytes) => bytes.clone(),
        other => other.to_string().into_bytes(),
    };
    line.push(b'\n');
    line
}

/// So many things: `1 disk`, `2 disks`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Text from elsewhere without what would steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Text as one line of at most `longest` characters.
pub(crate) fn clipped(text: &str, longest: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    let clean = plain(line);
    match clean.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", clean[..end].trim_end()),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_the_unit_that_suits_them() {
        let shown = [730, 1_234, 45_600, 1_500_000].map(|us| duration(Duration::from_micros(us)));
        assert_eq!(shown, ["730 µs", "1.23 ms", "46 ms", "1.50 s"]);
    }

    #[test]
    fn ages_have_two_units_at_most() {
        assert_eq!([0, 59, 3_605, 90_061].map(age), ["0s", "59s", "1h 5s", "1day 1h"]);
    }

    #[test]
    fn times_are_shown_to_the_second() {
        let at = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        assert_eq!(time(at), "2026-01-02 03:04:05 UTC");
    }

    #[test]
    fn a_returned_string_is_its_bytes_and_a_table_is_lua() {
        assert_eq!(value_line(&Value::String(b"a\xff".to_vec())), b"a\xff\n");
        let table = Value::Array(vec![Value::String(b"a".to_vec())]);
        assert_eq!(value_line(&table), b"{\"a\"}\n");
    }

    #[test]
    fn clipped_text_is_one_line_and_never_splits_a_character() {
        assert_eq!(clipped("añ\tb\nsecond", 10), "añ b");
        assert_eq!(clipped("äöü", 2), "äö…");
        assert_eq!(clipped("", 2), "");
    }
}
