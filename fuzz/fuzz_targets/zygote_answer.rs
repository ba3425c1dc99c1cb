//! What a zygote says to its controller, one message a datagram.

#![no_main]

use bioxen_core::protocol::zygote::Answer;
use bioxen_fuzz::survives_the_wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| survives_the_wire::<Answer>(datagram, &mut Vec::new()));
