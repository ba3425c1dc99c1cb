//! The client against servers on loopback addresses that say what a test tells them to.

mod sessions;
mod support;
mod transport;
mod trust;
