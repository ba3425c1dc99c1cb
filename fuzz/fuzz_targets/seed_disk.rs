//! The disk that a client of the simulated pool gives a guest for its first boot.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = xenapi_sim::guest::read_seed(Cursor::new(input));
});
