//! VHD images, dynamic and differencing, as streams.
//!
//! ```text
//! footer's copy │ dynamic header │ table: a sector per block, or none │ blocks … │ footer
//!                                          block = bitmap, one bit per sector │ data
//! ```
//!
//! All numbers are big-endian. Written as Microsoft published the format; fixed images, whose only
//! mark is at their end, cannot be told from raw ones in a stream and are refused.

mod export;
mod headers;
mod import;

pub use export::export_vhd;
pub use import::import_vhd;

const FORMAT: &str = "VHD";
const SECTOR: u64 = 512;

/// The sectors that the bitmap of a block takes.
fn bitmap_sectors(block_size: u32) -> u64 {
    (u64::from(block_size) / SECTOR).div_ceil(8 * SECTOR)
}
