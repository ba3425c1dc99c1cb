//! What hosts tell of their metrics: new rows, and archives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xenapi::metrics::{Kind, parse_archive, parse_updates};

fuzz_target!(|input: &[u8]| {
    let _ = parse_updates(input.to_vec());
    let _ = parse_archive(&Kind::Vm, "uuid", input);
});
