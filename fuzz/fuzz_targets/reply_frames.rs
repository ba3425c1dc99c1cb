//! What a worker says to its controller, in frames that arrive in pieces.

#![no_main]

use bioxen_core::protocol::Reply;
use bioxen_fuzz::{for_each_payload, survives_the_wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for_each_payload(input, |payload| survives_the_wire::<Reply>(payload, &mut Vec::new()));
});
