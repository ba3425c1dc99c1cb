//! Sizes as they were written in old files: `2GB`, `2048MB`, `4G`, `2048`. They meant powers of 1024.

use crate::defaults::Size;

/// An amount of memory; without a unit it is MiB.
pub(super) fn memory(text: &str) -> Result<Size, String> {
    parse(text, Some("mib"))
}

/// An amount of disk.
pub(super) fn disk(text: &str) -> Result<Size, String> {
    parse(text, None)
}

fn parse(text: &str, unit_of_none: Option<&str>) -> Result<Size, String> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim().to_lowercase();
    let unit = match unit.as_str() {
        "" => unit_of_none.ok_or("it has no unit")?,
        other => other,
    };
    let unit = match unit {
        "b" | "byte" | "bytes" => "B",
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "t" | "tb" | "tib" => "TiB",
        _ => return Err("its unit is not known".into()),
    };
    format!("{number}{unit}").parse().map_err(|_| "it is no size".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_units_are_powers_of_1024_and_bare_memory_is_mib() {
        for (text, size) in [
            ("2GB", "2GiB"),
            ("2048MB", "2GiB"),
            ("4 G", "4GiB"),
            ("2048", "2GiB"),
            ("1.5gb", "1536MiB"),
            ("512mb", "512MiB"),
            ("1TB", "1TiB"),
            ("1048576 bytes", "1MiB"),
        ] {
            assert_eq!(memory(text).map(|size| size.to_string()), Ok(size.to_owned()), "{text}");
        }
        assert_eq!(disk("20GB").map(|size| size.to_string()), Ok("20GiB".to_owned()));
        assert_eq!(disk("20"), Err("it has no unit".to_owned()));
        for text in ["", "GB", "-1GB", "2 parsecs", "0", "1.2.3GB", "99999999TB"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
