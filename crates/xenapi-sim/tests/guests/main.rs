//! Guests as processes, by the client that everybody has: OpenSSH's.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod booting;
#[path = "../transfers/client.rs"]
#[expect(dead_code, reason = "a part of it is needed here")]
mod client;
mod directories;
mod ending;
mod logging_in;
mod pool;
mod rig;
mod sessions;
