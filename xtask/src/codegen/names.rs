//! How the model's names become Rust's.

/// `VM_guest_metrics` and `balance-slb` as a type or a variant: `VmGuestMetrics`, `BalanceSlb`.
///
/// A capital that follows a lower-case letter starts a word (`restartHVM`: `RestartHvm`).
pub(crate) fn camel(name: &str) -> String {
    let mut text = String::new();
    let mut starts = true;
    let mut last = ' ';
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() {
            starts = true;
            last = letter;
            continue;
        }
        // `IPv4` is one word, and `vGPU` is too.
        let rises = last.is_ascii_lowercase() && last != 'v' && letter.is_ascii_uppercase();
        if starts || rises {
            text.push(letter.to_ascii_uppercase());
        } else {
            text.push(letter.to_ascii_lowercase());
        }
        starts = false;
        last = letter;
    }
    text
}

/// `VCPUs_max` and `current auth_type` as a field: `vcpus_max`, `current_auth_type`.
pub(crate) fn lower(name: &str) -> String {
    name.trim()
        .chars()
        .map(
            |letter| {
                if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' }
            },
        )
        .collect()
}

/// As [`lower`], where the name could be one of Rust's own words.
pub(crate) fn identifier(name: &str) -> String {
    const WORDS: [&str; 20] = [
        "as", "async", "await", "const", "enum", "extern", "fn", "for", "if", "impl", "in", "loop",
        "match", "mod", "move", "ref", "static", "type", "use", "where",
    ];
    let name = lower(name);
    if WORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types() {
        for (name, expected) in [
            ("VM", "Vm"),
            ("VM_guest_metrics", "VmGuestMetrics"),
            ("balance-slb", "BalanceSlb"),
            ("restartHVM", "RestartHvm"),
            ("IPv4", "Ipv4"),
            ("VM_BAD_POWER_STATE", "VmBadPowerState"),
        ] {
            assert_eq!(camel(name), expected);
        }
    }

    #[test]
    fn names_become_fields() {
        assert_eq!(identifier("VCPUs_max"), "vcpus_max");
        assert_eq!(identifier("current auth_type"), "current_auth_type");
        assert_eq!(identifier("type"), "r#type");
    }
}
