//! A simulated XCP-ng pool in one process that speaks the Xen API.

pub mod disk;
pub mod driver;
pub mod guest;
pub mod store;
