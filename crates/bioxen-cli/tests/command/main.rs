//! The `bioxen` command as it was built: what it prints, and what the shell sees.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod comparison;
mod config;
mod demo;
mod doctor;
mod endings;
mod eval;
mod examples;
mod json;
mod pages;
mod pool;
mod refused;
mod repl;
mod run;
mod signals;
#[cfg(target_os = "linux")]
mod sim;
mod support;
mod terminal;
#[cfg(target_os = "linux")]
mod vm;
#[cfg(target_os = "linux")]
mod ways;

#[cfg(target_os = "linux")]
#[path = "../../../bioxen-xcp/tests/ssh/agent.rs"]
mod agent;
#[cfg(target_os = "linux")]
#[path = "../../../bioxen-xcp/tests/ssh/server.rs"]
#[expect(dead_code, reason = "the tests of connections need more of it")]
mod server;
