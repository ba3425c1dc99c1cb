//! A simulated XCP-ng pool in one process that speaks the Xen API.

pub mod driver;
pub mod store;
