//! What crosses an SSH connection, tried against OpenSSH's own server.

#![allow(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

#[path = "ssh/agent.rs"]
mod agent;
#[path = "ssh/connecting.rs"]
mod connecting;
#[path = "ssh/copying.rs"]
mod copying;
#[path = "ssh/evaluating.rs"]
mod evaluating;
#[path = "ssh/running.rs"]
mod running;
#[path = "ssh/server.rs"]
mod server;
