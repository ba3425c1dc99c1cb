//! A worker that runs by itself: what it says to an order that it cannot follow, and what is left of it
//! when its controller hangs up or any of its processes is killed. Nothing is.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

#[path = "standalone/by_hand.rs"]
mod by_hand;
#[path = "standalone/chroot.rs"]
mod chroot;
#[path = "standalone/ends.rs"]
mod ends;
#[path = "standalone/guest.rs"]
mod guest;
#[path = "standalone/orders.rs"]
mod orders;
#[path = "standalone/unannounced.rs"]
mod unannounced;
