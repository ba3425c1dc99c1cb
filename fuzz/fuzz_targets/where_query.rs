//! The query of `get_all_records_where`, as the simulated pool reads it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        xenapi_sim::fuzzing::query(text);
    }
});
