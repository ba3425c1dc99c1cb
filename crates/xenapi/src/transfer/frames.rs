//! The server's own framing of a raw disk, which leaves out what need not be written.
//!
//! ```text
//! offset (8 bytes) length (4 bytes) data … offset length data … 0 0
//! ```
//!
//! Numbers are little-endian. The parameter `chunked` of the request asks for it; it has nothing to do
//! with HTTP's chunks. The server writes each piece at its offset, past the caches of its kernel, so
//! offsets and lengths are whole sectors.

use std::ops::Range;

use super::source::{Block, HEADROOM};
use super::zeros;

/// How long the head of a frame is.
pub(crate) const HEAD: usize = 12;
/// What closes the row of frames: an empty one at the start of the disk.
pub(crate) const END: [u8; HEAD] = [0; HEAD];
/// What disks are written in.
const SECTOR: usize = 512;
/// The shortest piece that a source is cut into, but for its last.
const PAGE: u64 = 4096;

/// What stands before data of this length that belongs at this offset.
pub(crate) fn head(offset: u64, length: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&offset.to_le_bytes());
    head[8..].copy_from_slice(&length.to_le_bytes());
    head
}

/// The most that a disk of this length can take on the wire.
///
/// How much it will be is known only when all has been read, and a length must be announced before. The
/// server does not count: the closing frame tells it the end.
pub(crate) fn longest(length: u64) -> u64 {
    let frames = length.div_ceil(PAGE) + 1;
    length.next_multiple_of(SECTOR as u64) + frames * HEAD as u64
}

/// The next frame of the block from this place on, and where to go on.
pub(crate) fn next(block: &mut Block, from: usize) -> Option<(&[u8], usize)> {
    let Range { start, mut end } = zeros::next_run(block.data(), from)?;
    let resume = end;
    if end == block.data().len() {
        end = block.pad(SECTOR);
    }
    let length = u32::try_from(end - start).expect("blocks are small");
    let offset = block.offset + start as u64;
    Some((block.framed(start..end, head(offset, length)), resume))
}

const _: () = assert!(HEAD <= HEADROOM);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transfer::upload::Form;
    use crate::transfer::zeros::CELL;
    use crate::transfer::{Meter, Source};

    /// What a source becomes on the wire.
    async fn sent(form: Form, mut source: Source) -> Vec<u8> {
        let meter = Meter::new(None, None);
        let mut wire = Vec::new();
        form.send(&mut wire, &mut source, &meter).await.unwrap();
        assert_eq!(meter.progress().done, source.length());
        assert_eq!(meter.progress().transferred, wire.len() as u64);
        wire
    }

    /// Writes frames into a disk as a server does.
    fn written(mut wire: &[u8], size: usize) -> Vec<u8> {
        let mut disk = vec![0; size.next_multiple_of(SECTOR)];
        loop {
            let (head, rest) = wire.split_at(HEAD);
            let offset = u64::from_le_bytes(head[..8].try_into().unwrap());
            let length = u32::from_le_bytes(head[8..].try_into().unwrap()) as usize;
            if (offset, length) == (0, 0) {
                assert!(rest.is_empty());
                disk.truncate(size);
                return disk;
            }
            let offset = usize::try_from(offset).unwrap();
            assert!(length > 0 && length.is_multiple_of(SECTOR) && offset.is_multiple_of(SECTOR));
            let (data, rest) = rest.split_at(length);
            disk[offset..offset + length].copy_from_slice(data);
            wire = rest;
        }
    }

    #[test]
    fn a_frame_begins_with_its_offset_and_length() {
        let expected = [0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0];
        assert_eq!(head(1 << 32, 512), expected);
    }

    #[tokio::test]
    async fn nothing_but_zeros_is_only_the_closing_frame() {
        for length in [0, 1, 10 << 20] {
            assert_eq!(sent(Form::Frames, Source::bytes(vec![0; length])).await, END);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_disk_survives_either_form_and_is_never_longer_than_was_announced(
            cells in proptest::collection::vec(proptest::option::of(0..CELL), 0..30),
            tail in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut bytes = vec![0; cells.len() * CELL];
            for (index, place) in cells.iter().enumerate() {
                if let Some(place) = place {
                    bytes[index * CELL + place] = 1;
                }
            }
            bytes.extend(tail);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            runtime.block_on(async {
                for source in
                    [Source::bytes(bytes.clone()), Source::file(file.try_clone().unwrap()).unwrap()]
                {
                    let wire = sent(Form::Frames, source).await;
                    assert!(wire.len() as u64 <= longest(bytes.len() as u64));
                    assert!(written(&wire, bytes.len()) == bytes);
                }
                assert!(sent(Form::Whole, Source::file(file).unwrap()).await == bytes);
            });
        }
    }
}
