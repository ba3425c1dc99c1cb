//! Disks in and out of a pool, byte for byte as clients send and read them.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

#[path = "transfers/client.rs"]
mod client;
#[path = "transfers/disks.rs"]
mod disks;
#[path = "transfers/images.rs"]
mod images;
