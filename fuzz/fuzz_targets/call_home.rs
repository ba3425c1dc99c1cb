//! What somebody says who may be a guest that calls home: more of it does not change what it was.

#![no_main]

use bioxen_xcp::fuzzing::call_home;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, said)) = input.split_first() else { return };
    let whole = call_home(said);
    if let Some(call) = call_home(&said[..usize::from(*first).min(said.len())]) {
        assert_eq!(Some(call), whole);
    }
});
