//! What a pool answers as XML, and the XML in the results of tasks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xenapi::wire::{Protocol, Value, decode, task_result};
use xenapi::{Map, Ref, class, vm};

fuzz_target!(|input: &[u8]| {
    let _ = decode::<Value>(Protocol::XmlRpc, input.to_vec());
    let _ = decode::<Map<Ref<class::Vm>, vm::Record>>(Protocol::XmlRpc, input.to_vec());
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = task_result::<Vec<Ref<class::Vm>>>(text);
        let _ = task_result::<Value>(text);
    }
});
