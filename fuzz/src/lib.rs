//! What the fuzz targets have in common.
//!
//! An input for frames is the number of lengths, those lengths, and then a stream of bytes, which
//! arrives in pieces of these lengths, over and over; without any length it arrives whole.

use std::fmt::Debug;

use bioxen_core::protocol::{Decoder, HEADER_LENGTH, decode, encode};
use serde::{Deserialize, Serialize};

/// The largest payload that the decoder under test accepts.
const LARGEST: usize = 1 << 16;

/// Feeds the stream in `input` to a decoder and shows each payload that comes out to `check`, until
/// the stream ends or makes no sense. The payloads must be those of the stream, each as soon as it is
/// whole. The stream as it is counts as a payload too, so that a change to a message is not lost for
/// want of a length that fits.
///
/// # Panics
///
/// When a payload is another than arrived, or comes late.
pub fn for_each_payload(input: &[u8], mut check: impl FnMut(&[u8])) {
    let Some((count, rest)) = input.split_first() else { return };
    let (lengths, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    check(stream);
    let mut decoder = Decoder::new(LARGEST);
    let mut expected = stream;
    for piece in pieces(lengths, stream) {
        decoder.space().extend_from_slice(piece);
        loop {
            match decoder.next_payload() {
                Ok(Some(payload)) => {
                    let (frame, rest) = expected.split_at(HEADER_LENGTH + payload.len());
                    assert_eq!(
                        payload,
                        frame[HEADER_LENGTH..],
                        "payloads come out as they arrived"
                    );
                    expected = rest;
                    check(&payload);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if let Some(header) = decoder.space().first_chunk() {
            let whole = HEADER_LENGTH + u32::from_be_bytes(*header) as usize;
            assert!(decoder.space().len() < whole, "a whole frame does not wait for more bytes");
        }
    }
}

fn pieces<'a>(lengths: &'a [u8], mut stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().map(|length| usize::from(*length).max(1)).cycle();
    std::iter::from_fn(move || {
        let length = lengths.next().unwrap_or(stream.len()).min(stream.len());
        let (piece, rest) = stream.split_at(length);
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Checks of a payload that is a message: it is the same after it was written and read again, and is
/// then written the same. `space` is where it is written.
///
/// # Panics
///
/// When it is not.
pub fn survives_the_wire<'a, T>(payload: &'a [u8], space: &'a mut Vec<u8>)
where
    T: Serialize + Deserialize<'a> + PartialEq + Debug,
{
    let Ok(message) = decode::<T>(payload) else { return };
    *space = encode(&message);
    let frame: &'a [u8] = space;
    let again: T = decode(&frame[HEADER_LENGTH..]).expect("what was written can be read");
    assert_eq!(encode(&again), frame, "it is written the same");
    if again != message {
        // A message with a NaN in it is not equal to itself.
        assert_eq!(format!("{again:?}"), format!("{message:?}"), "it is read the same");
    }
}
