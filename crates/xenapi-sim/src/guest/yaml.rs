//! YAML as cloud-init's reader takes it: version 1.1 in the places where that matters.

use serde_json::Value;

/// Parses a document. An empty one, or one of comments, is null.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{feff}');
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    // Documents of strangers: the parser's own budget against blow-up is on by default.
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    // `y` is a text; `yes` is told from it where a boolean is wanted.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.to_string().lines().next().unwrap_or("it is not YAML").to_owned())
}

/// A scalar as text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text, or a list of texts.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

/// A boolean, also where it was written as a word or a number.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => Some(number.as_i64() != Some(0)),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_octal_numbers_mean_what_they_mean_to_cloud_init() {
        let value = parse(b"ssh_pwauth: yes\nmode: 0644\ntext: '0644'\n").unwrap();
        assert_eq!(boolean(&value["ssh_pwauth"]), Some(true));
        assert_eq!(value["mode"], 0o644);
        assert_eq!(value["text"], "0644");
    }

    #[test]
    fn documents_made_to_blow_up_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            bomb.extend([
                "a",
                &level.to_string(),
                ": &a",
                &level.to_string(),
                " [",
                &before,
                "]\n",
            ]);
        }
        assert!(parse(bomb.as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
