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
