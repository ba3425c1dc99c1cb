//! What a pool answers over HTTP: it is the same in whatever pieces it comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xenapi::fuzzing::answers;

/// The largest body that is taken.
const LIMIT: usize = 1 << 12;

fuzz_target!(|input: &[u8]| {
    let Some((pieces, bytes)) = input.split_first() else { return };
    let whole = answers(usize::MAX, LIMIT, bytes);
    assert_eq!(answers(usize::from(*pieces).max(1), LIMIT, bytes), whole);
});
