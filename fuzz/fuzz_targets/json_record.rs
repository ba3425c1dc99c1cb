//! What a pool answers as JSON: a record by itself, and an answer with many of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xenapi::wire::{Protocol, decode};
use xenapi::{Map, Ref, class, vm};

fuzz_target!(|input: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<vm::Record>(input) {
        let written = serde_json::to_vec(&record).expect("a record can be written");
        serde_json::from_slice::<vm::Record>(&written).expect("what was written can be read");
    }
    for protocol in [Protocol::JsonRpc2, Protocol::JsonRpc1] {
        let _ = decode::<Map<Ref<class::Vm>, vm::Record>>(protocol, input.to_vec());
        let _ = decode::<xenapi::EventBatch>(protocol, input.to_vec());
    }
});
