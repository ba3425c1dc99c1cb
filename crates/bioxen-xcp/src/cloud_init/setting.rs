//! The small values of a configuration, each checked where it comes in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Why a text cannot stand where it was meant to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is no {what}: {reason}")]
pub struct InvalidSetting {
    what: &'static str,
    value: String,
    reason: &'static str,
}

impl InvalidSetting {
    /// Keeps the beginning of the value only, made fit to print.
    pub(super) fn new(what: &'static str, value: &str, reason: &'static str) -> Self {
        let shown: String = value.chars().take(60).collect();
        let rest = if shown.len() < value.len() { "…" } else { "" };
        Self { what, value: format!("{}{rest}", shown.escape_debug()), reason }
    }

    /// For values that must not be shown.
    pub(super) fn hidden(what: &'static str, reason: &'static str) -> Self {
        Self { what, value: "…".into(), reason }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        format!("correct the {}; nothing was made", self.what)
    }
}

/// Declares a text that is checked once.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the text and wraps it.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidSetting> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(InvalidSetting::new($what, &text, reason)),
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidSetting;
            fn from_str(text: &str) -> Result<Self, InvalidSetting> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// The identity that a guest takes its configuration to be for: cloud-init does its work again when
    /// it changes. A VM's uuid is a good one.
    InstanceId, "instance id", |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ensure((1..=128).contains(&text.len()), "it has 1 to 128 characters")?;
        ensure(text.bytes().all(is_part), "it is made of letters, digits, `-`, `_` and `.`")
    }
}

checked_text! {
    /// A host's name, with or without its domain.
    HostName, "host name", |text| {
        ensure((1..=253).contains(&text.len()), "it has 1 to 253 characters")?;
        ensure(text.split('.').all(is_label), "its parts are 1 to 63 letters, digits and inner hyphens")?;
        let last = text.rsplit('.').next().unwrap_or_default();
        ensure(!last.bytes().all(|byte| byte.is_ascii_digit()), "its last part is not a number")
    }
}

checked_text! {
    /// The name of a user or of a group, as Linux distributions take it.
    AccountName, "user or group name", |text| {
        let starts = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let is_part = |byte: u8| starts(byte) || byte.is_ascii_digit() || byte == b'-';
        ensure((1..=32).contains(&text.len()), "it has 1 to 32 characters")?;
        ensure(starts(text.as_bytes()[0]), "it starts with a lowercase letter or `_`")?;
        ensure(text.bytes().all(is_part), "it is made of a-z, 0-9, `-` and `_`")
    }
}

checked_text! {
    /// A package as the guest's package manager names it.
    PackageName, "package", |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+:/~".contains(&byte);
        ensure((1..=256).contains(&text.len()), "it has 1 to 256 characters")?;
        ensure(!text.starts_with('-'), "it would be taken for an option")?;
        ensure(text.bytes().all(is_part), "it is one word of letters, digits and `-_.+:/~`")
    }
}

checked_text! {
    /// The version of a package, as the guest's package manager writes it.
    PackageVersion, "package version", |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+:~*".contains(&byte);
        let is_version = (1..=128).contains(&text.len()) && text.bytes().all(is_part);
        ensure(is_version && !text.starts_with('-'), "it is one word of letters, digits and `-_.+:~*`")
    }
}

checked_text! {
    /// A time zone, such as `Europe/Berlin`.
    TimeZone, "time zone", |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte);
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_part);
        ensure(text.len() <= 64 && text.split('/').all(is_name), "it looks like `Europe/Berlin` or `UTC`")
    }
}

checked_text! {
    /// A locale, such as `en_GB.UTF-8`.
    Locale, "locale", |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        let is_locale = (1..=64).contains(&text.len()) && text.bytes().all(is_part);
        ensure(is_locale && !text.starts_with(['-', '.']), "it looks like `en_GB.UTF-8` or `C`")
    }
}

checked_text! {
    /// A server of the network, by name or by address.
    Server, "server", |text| {
        let is_server = text.parse::<IpAddr>().is_ok() || HostName::new(text).is_ok();
        ensure(is_server, "it is a host's name or an address")
    }
}

/// An error unless it holds.
pub(super) fn ensure(holds: bool, reason: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(reason) }
}

fn is_label(label: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(is_part)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// An absolute path without control characters.
pub(super) fn check_path(what: &'static str, path: &str) -> Result<(), InvalidSetting> {
    let invalid = |reason| Err(InvalidSetting::new(what, path, reason));
    if !path.starts_with('/') || path.len() > 4095 {
        return invalid("it is an absolute path");
    }
    if path.ends_with('/') || path.split('/').any(|part| part == "..") {
        return invalid("it names a file, without `..`");
    }
    if path.contains(char::is_control) {
        return invalid("it has no control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_something_is_taken() {
        assert!(HostName::new("node-1.lab.example").is_ok());
        assert!(AccountName::new("_ada-1").is_ok());
        assert!(PackageName::new("libstdc++6:amd64").is_ok());
        assert!(TimeZone::new("America/Argentina/Buenos_Aires").is_ok());
        assert!(Locale::new("de_DE@euro").is_ok());
        assert!(Server::new("fe80::1").is_ok() && Server::new("ntp.lab").is_ok());
        assert!(InstanceId::new("5f9d6b5e-7a0c-4f1b-8f39-0c8f0a9f6f11").is_ok());
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for name in ["", "-a", "a-", "a..b", "a b", "a\n", "1.2.3.4", "ä"] {
            assert!(HostName::new(name).is_err(), "{name:?}");
        }
        for name in ["", "Ada", "1a", "a:b", "a b", "a\n", "ada$"] {
            assert!(AccountName::new(name).is_err(), "{name:?}");
        }
        for name in ["", "-y", "a b", "a;b", "a\n"] {
            assert!(PackageName::new(name).is_err(), "{name:?}");
        }
        for name in ["", "/etc/shadow", "../UTC", "a b", "Europe/"] {
            assert!(TimeZone::new(name).is_err(), "{name:?}");
        }
        for path in ["etc/x", "/", "/a/../b", "/a/", "/a\n", "", "/a\0"] {
            assert!(check_path("path", path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn an_error_shows_no_more_than_the_beginning() {
        let error = HostName::new("x\n".repeat(200)).unwrap_err().to_string();
        assert!(error.len() < 250 && error.contains("\\n") && !error.contains('\n'), "{error}");
    }
}
