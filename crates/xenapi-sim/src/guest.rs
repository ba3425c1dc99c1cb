//! Guests that can be logged into: what runs in a simulated VM, behind a real SSH server.
//!
//! [`ProcessGuests`] is the driver that a pool is given. When a VM starts, it builds a root of the guest's
//! own, reads the `NoCloud` seed from the VM's disks ([`read_seed`]), does what cloud-init would do with
//! it, and answers SSH on an own address of the loopback network, which it reports as the guest's agent
//! does. Commands, shells with a terminal, and SFTP work as on a real machine.
//!
//! # What a guest is not
//!
//! Its programs are those of this machine. Its users differ in name, home and keys, and have the same
//! rights within the guest: `sudo` runs what it is given. Its network is the machine's. Where this
//! machine has no namespaces to give, it is a directory, and its commands see the machine;
//! [`Isolation`] says which it is.

mod accounts;
mod address;
mod boot;
mod booted;
mod cloud_config;
pub(crate) mod console;
mod fat;
mod fault;
mod files;
mod host_keys;
mod network;
mod phone_home;
mod process;
mod report;
mod root;
mod sandbox;
mod seed;
mod ssh;
mod starting;
mod yaml;

pub use cloud_config::{CloudConfig, Command, FileToWrite, Password, PhoneHome, PowerState, User};
pub use fault::{GuestFault, UnknownFault};
pub use process::{ProcessGuests, ProcessOptions};
pub use sandbox::Isolation;
pub use seed::{Seed, SeedError, UserData, read_seed};
