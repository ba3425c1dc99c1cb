//! Addresses of servers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The address of a server: `https://xcp-01`, `https://[fd00::1]:8443`, `http://127.0.0.1:8080`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It has no form of an address.
    #[error("`{0}` is no address of a host: write `https://HOST` or `https://HOST:PORT`")]
    Malformed(String),
    /// It would send passwords in clear over a network.
    #[error("`{0}` is plain HTTP, which is only for loopback addresses: write `https://`")]
    Insecure(String),
}

impl Endpoint {
    /// The name or address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is spoken to by TLS; without, only loopback addresses are.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Another host that is spoken to in the same way, as members of one pool are.
    #[must_use]
    pub fn with_host(&self, host: &str) -> Self {
        let host = host.trim().trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { host, ..self.clone() }
    }

    /// What goes into the header `Host`.
    pub(crate) fn authority(&self) -> String {
        let standard = if self.tls { 443 } else { 80 };
        let host = if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == standard { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidAddress;

    /// Without a scheme it is HTTPS. What follows the port must be nothing or `/`.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let malformed = || InvalidAddress::Malformed(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(malformed()),
            None => (true, text),
        };
        let (host, port) = split(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(malformed)?;
        let endpoint =
            Self { tls, host: host.to_owned(), port: port.unwrap_or(if tls { 443 } else { 80 }) };
        let remote = host.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback());
        if !tls && remote {
            return Err(InvalidAddress::Insecure(text.to_owned()));
        }
        Ok(endpoint)
    }
}

/// Host and port; an IPv6 address may stand without brackets where there is no port.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    (!host.is_empty() && host.chars().all(plain)).then_some((host, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        for (text, expected) in [
            ("xcp-01", "https://xcp-01"),
            ("https://xcp-01.example:8443/", "https://xcp-01.example:8443"),
            ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
            ("fd00::1", "https://[fd00::1]"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "https://",
            "ftp://a",
            "a b",
            "a:b",
            "[fd00::1",
            "https://u:p@h/",
            "h/x",
            "h:99999",
        ] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(InvalidAddress::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn plain_http_is_refused_but_to_loopback() {
        assert!(matches!("http://192.0.2.1".parse::<Endpoint>(), Err(InvalidAddress::Insecure(_))));
    }

    #[test]
    fn the_master_is_spoken_to_as_the_member_was() {
        let member: Endpoint = "https://10.0.0.2:8443".parse().unwrap();
        assert_eq!(member.with_host("fd00::7").to_string(), "https://[fd00::7]:8443");
        assert_eq!(member.with_host("[fd00::7]").host(), "fd00::7");
    }
}
