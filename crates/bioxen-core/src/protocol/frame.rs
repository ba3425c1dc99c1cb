//! Frames: a length and a `MessagePack` payload.

use bytes::{Buf, Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Bytes of a frame before its payload.
pub const HEADER_LENGTH: usize = 4;

/// Levels of nesting that a payload may have: values within values, and the message around them.
const DEEPEST_PAYLOAD: usize = 2 * super::DEEPEST_VALUE + 16;

/// Why bytes from the other side make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond what this side accepts.
    #[error(
        "a frame claims {claimed} bytes where at most {allowed} are accepted; it starts with {start}"
    )]
    TooLong {
        /// The length in the header.
        claimed: usize,
        /// The bound.
        allowed: usize,
        /// The header, as text that shows any byte.
        start: String,
    },
    /// The payload is no message of the protocol.
    #[error("a frame of {length} bytes is no message ({reason}); it starts with {start}")]
    NotAMessage {
        /// The payload's length.
        length: usize,
        /// What the decoder says.
        reason: String,
        /// Its first bytes, as text that shows any byte.
        start: String,
    },
}

fn show_start(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(32)].escape_ascii())
}

/// One message as a whole frame.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    encode_into(&mut frame, message);
    frame
}

/// Appends one message as a whole frame.
///
/// # Panics
///
/// When the message has 4 GiB or more; callers bound what they put into one.
pub fn encode_into<T: Serialize>(buffer: &mut Vec<u8>, message: &T) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_LENGTH]);
    rmp_serde::encode::write(buffer, message).expect("writing to memory cannot fail");
    let length = buffer.len() - start - HEADER_LENGTH;
    let length = u32::try_from(length).expect("callers keep messages below 4 GiB");
    buffer[start..start + HEADER_LENGTH].copy_from_slice(&length.to_be_bytes());
}

/// Reads one message out of a frame's payload.
pub fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, FrameError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(payload);
    deserializer.set_max_depth(DEEPEST_PAYLOAD);
    let message = T::deserialize(&mut deserializer).map_err(|error| FrameError::NotAMessage {
        length: payload.len(),
        reason: error.to_string(),
        start: show_start(payload),
    })?;
    // A second message must fail for want of its first byte.
    match IgnoredAny::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
        _ => Err(FrameError::NotAMessage {
            length: payload.len(),
            reason: "more bytes follow the message".into(),
            start: show_start(payload),
        }),
    }
}

/// Cuts a stream of bytes into frames.
///
/// Bytes are read straight into [`Decoder::space`]; payloads are slices of it, not copies. It never
/// reserves more than it was given, whatever a header claims.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    largest: usize,
}

impl Decoder {
    /// A decoder that refuses payloads of more than `largest` bytes.
    pub fn new(largest: usize) -> Self {
        Self { buffer: BytesMut::new(), largest }
    }

    /// Where arriving bytes are appended.
    pub fn space(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Changes the largest payload that is accepted.
    pub fn set_largest(&mut self, largest: usize) {
        self.largest = largest;
    }

    /// The next payload, or `None` until more bytes arrive.
    pub fn next_payload(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let claimed = u32::from_be_bytes(*header) as usize;
        if claimed > self.largest {
            let start = show_start(&self.buffer);
            return Err(FrameError::TooLong { claimed, allowed: self.largest, start });
        }
        if self.buffer.len() < HEADER_LENGTH + claimed {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LENGTH);
        Ok(Some(self.buffer.split_to(claimed).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Reply, Request};
    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_arrive(
            payloads in prop::collection::vec(any::<Vec<u8>>(), 0..6),
            step in 1_usize..9,
        ) {
            let stream: Vec<u8> = payloads
                .iter()
                .flat_map(|payload| {
                    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    [&length[..], payload].concat()
                })
                .collect();
            let mut decoder = Decoder::new(1 << 20);
            let mut seen = Vec::new();
            for bytes in stream.chunks(step) {
                decoder.space().extend_from_slice(bytes);
                while let Some(payload) = decoder.next_payload().unwrap() {
                    seen.push(payload.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Reply>(&bytes);
            let _ = decode::<Request>(&bytes);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_header_alone() {
        let mut decoder = Decoder::new(100);
        decoder.space().extend_from_slice(b"GET / HTTP/1.1");
        let error = decoder.next_payload().unwrap_err();
        assert!(error.to_string().contains("\"GET / HTTP/1.1\""), "{error}");
    }

    #[test]
    fn values_nested_beyond_all_reason_are_refused_and_not_followed() {
        let mut payload = vec![0x81, 0xa3];
        payload.extend_from_slice(b"end");
        payload.extend(std::iter::repeat_n(0x91, 100_000));
        assert!(matches!(decode::<Reply>(&payload), Err(FrameError::NotAMessage { .. })));
    }

    #[test]
    fn bytes_after_a_message_are_noticed() {
        let mut frame = encode(&Reply::NeedInput(1));
        frame.push(0);
        let error = decode::<Reply>(&frame[HEADER_LENGTH..]).unwrap_err();
        assert!(error.to_string().contains("more bytes follow"), "{error}");
    }
}
