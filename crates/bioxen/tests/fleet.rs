//! The fleet: names, groups, events, and what is left when something dies.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

#[path = "fleet/common.rs"]
mod common;
#[path = "fleet/creating.rs"]
mod creating;
#[path = "fleet/deaths.rs"]
mod deaths;
#[path = "fleet/exhaustion.rs"]
mod exhaustion;
#[path = "fleet/fake_workers.rs"]
mod fake_workers;
#[path = "fleet/groups.rs"]
mod groups;
#[path = "fleet/leftovers.rs"]
mod leftovers;
#[path = "fleet/lives.rs"]
mod lives;
