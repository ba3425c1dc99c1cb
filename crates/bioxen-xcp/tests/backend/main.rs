//! What happens to VMs of type `xcpng` that happens to no other: machines that restart, wires that are
//! cut, guests that do not become what they should.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod cable;
mod lab;
mod losing;
mod making;
#[path = "../support/mod.rs"]
mod support;
