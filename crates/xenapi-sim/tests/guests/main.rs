//! Guests as processes, by the client that everybody has: OpenSSH's.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod booting;
mod ending;
mod logging_in;
mod rig;
mod sessions;
