//! A simulated XCP-ng pool.

pub mod disk;
pub mod guest;
