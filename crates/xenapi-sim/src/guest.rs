//! Guests that can be logged into: what runs in a simulated VM, behind a real SSH server.

mod cloud_config;
mod fat;
mod seed;
mod yaml;

pub use cloud_config::{CloudConfig, Command, FileToWrite, Password, PowerState, User};
pub use seed::{Seed, SeedError, UserData, read_seed};
