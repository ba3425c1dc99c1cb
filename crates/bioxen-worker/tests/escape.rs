//! Attempts to get out: to read, write, connect, start programs, load C code, outlive a limit or
//! disturb a neighbour. Every one of them is refused.
//!
//! Each attempt is a test of its own. It runs in a VM beside a neighbour, in front of files that
//! nobody may touch and with a secret that must not get out; see `place`. Success is not taken from
//! what the code says but from what can be seen from outside.
//!
//! Where this machine lacks a mechanism that an attempt is held back by, the test says so and tries
//! nothing. As root, the whole suite is run a second time as an ordinary user; and it is run again on
//! workers that no zygote forks.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, as in tests")]
#![allow(clippy::format_collect, reason = "tests build small texts the short way")]
#![allow(clippy::similar_names, reason = "uid and gid are called so")]
#![cfg(target_os = "linux")]

#[path = "escape/by_itself.rs"]
mod by_itself;
#[path = "escape/calls.rs"]
mod calls;
#[path = "escape/connecting.rs"]
mod connecting;
#[path = "escape/disturbing.rs"]
mod disturbing;
#[path = "escape/loading.rs"]
mod loading;
#[path = "escape/native.rs"]
mod native;
#[path = "escape/ordinary_user.rs"]
mod ordinary_user;
#[path = "escape/outliving.rs"]
mod outliving;
#[path = "escape/overrunning.rs"]
mod overrunning;
#[path = "escape/place.rs"]
mod place;
#[path = "escape/reading.rs"]
mod reading;
#[path = "escape/spawning.rs"]
mod spawning;
#[path = "escape/tampering.rs"]
mod tampering;
#[path = "escape/writing.rs"]
mod writing;
