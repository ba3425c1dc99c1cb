//! The client against servers on loopback addresses that say what a test tells them to.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers are parts of tests")]

mod events;
mod lanes;
mod mirror;
mod pool;
mod sessions;
mod support;
mod tasks;
mod transport;
mod trust;
