//! Handlers beside messages, against a pool on loopback addresses that does as a test tells it.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers are parts of tests")]

mod consoles;
mod exports;
mod imports;
mod metrics;
mod support;
