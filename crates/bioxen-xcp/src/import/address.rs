//! Addresses as they were written in old files, and what pools are called after them.

use std::net::IpAddr;

use xenapi::Endpoint;

use crate::pool::PoolName;

/// An address as it was written in old files: with or without a scheme, a port and a path.
///
/// What is wrong with a text is told without repeating it: it may hold a password.
pub(super) fn address(text: &str) -> Result<(Endpoint, Option<&'static str>), &'static str> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("it has a user in it; write the address alone");
    }
    let parse = |scheme| format!("{scheme}://{authority}").parse::<Endpoint>();
    let is_local = authority.parse::<std::net::SocketAddr>().map_or_else(
        |_| authority.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        |address| address.ip().is_loopback(),
    );
    match scheme.to_lowercase().as_str() {
        "https" => parse("https").map(|address| (address, None)),
        "http" if is_local => parse("http").map(|address| (address, None)),
        "http" => {
            let note = "passwords are not sent by plain HTTP, so it is HTTPS now";
            let authority = authority.strip_suffix(":80").unwrap_or(authority);
            format!("https://{authority}").parse().map(|address| (address, Some(note)))
        }
        _ => return Err("it is no address that begins with https://"),
    }
    .map_err(|_| "it is no address of a host")
}

/// A pool's name after its host: `xcp-01.example` is `xcp-01`, `10.0.0.5` is `pool-10-0-0-5`.
pub(super) fn name_of(address: &Endpoint) -> PoolName {
    let host = address.host().to_lowercase();
    let is_ip = host.parse::<IpAddr>().is_ok();
    let label = if is_ip { host.as_str() } else { host.split('.').next().unwrap_or_default() };
    let safe: String = label
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(50)
        .collect();
    match PoolName::new(safe.clone()) {
        Ok(name) if !is_ip => name,
        _ => PoolName::new(format!("pool-{safe}"))
            .expect("letters, digits and hyphens behind a word are a name"),
    }
}

/// Whether a text is the pool's own uuid, which would be no name for people.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
