//! The two headers: plain values from and to bytes.

use super::super::ImageError;
use super::{FORMAT, SECTOR};

pub(super) const FOOTER: usize = 512;
pub(super) const DYNAMIC_HEADER: usize = 1024;

/// The blocks of images that we write.
pub(super) const BLOCK_SIZE: u32 = 2 << 20;
/// More entries than the largest disk of the smallest block that we take.
const MOST_ENTRIES: u32 = 4 << 20;

const COOKIE: [u8; 8] = *b"conectix";
const DYNAMIC_COOKIE: [u8; 8] = *b"cxsparse";
const VERSION: u32 = 0x0001_0000;
/// The creator's mark of the toolstack's storage: readers take the size from the footer, where with
/// others they compute it from the geometry.
const CREATOR: &[u8; 4] = b"tap\0";

/// What kind of image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blocks that are not there are zeros.
    Dynamic,
    /// Sectors that are not there are those of another image.
    Differencing,
}

/// The footer, which also opens the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) header_at: u64,
    pub(super) unique_id: [u8; 16],
}

impl Footer {
    pub(super) fn to_bytes(self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[0..8].copy_from_slice(&COOKIE);
        put_u32(&mut bytes, 8, 2); // features: none, but a bit that is always set
        put_u32(&mut bytes, 12, VERSION);
        put_u64(&mut bytes, 16, self.header_at);
        bytes[28..32].copy_from_slice(CREATOR);
        put_u32(&mut bytes, 32, VERSION);
        put_u64(&mut bytes, 40, self.size);
        put_u64(&mut bytes, 48, self.size);
        bytes[56..60].copy_from_slice(&geometry(self.size));
        put_u32(&mut bytes, 60, if self.kind == Kind::Dynamic { 3 } else { 4 });
        bytes[68..84].copy_from_slice(&self.unique_id);
        let sum = checksum(&bytes, 64);
        put_u32(&mut bytes, 64, sum);
        bytes
    }

    pub(super) fn parse(bytes: &[u8; FOOTER]) -> Result<Self, ImageError> {
        check(bytes, COOKIE, 64, "footer")?;
        let kind = match u32_at(bytes, 60) {
            2 => return Err(malformed("it is a fixed image; send it as `raw`")),
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => return Err(malformed(format!("it is of the unknown type {other}"))),
        };
        let mut unique_id = [0; 16];
        unique_id.copy_from_slice(&bytes[68..84]);
        Ok(Self { kind, size: u64_at(bytes, 48), header_at: u64_at(bytes, 16), unique_id })
    }
}

/// The dynamic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DynamicHeader {
    pub(super) table_at: u64,
    pub(super) entries: u32,
    pub(super) block_size: u32,
    /// All zero for an image without a parent.
    pub(super) parent_id: [u8; 16],
}

impl DynamicHeader {
    pub(super) fn to_bytes(self) -> [u8; DYNAMIC_HEADER] {
        let mut bytes = [0; DYNAMIC_HEADER];
        bytes[0..8].copy_from_slice(&DYNAMIC_COOKIE);
        put_u64(&mut bytes, 8, u64::MAX);
        put_u64(&mut bytes, 16, self.table_at);
        put_u32(&mut bytes, 24, VERSION);
        put_u32(&mut bytes, 28, self.entries);
        put_u32(&mut bytes, 32, self.block_size);
        bytes[40..56].copy_from_slice(&self.parent_id);
        let sum = checksum(&bytes, 36);
        put_u32(&mut bytes, 36, sum);
        bytes
    }

    pub(super) fn parse(bytes: &[u8; DYNAMIC_HEADER], footer: &Footer) -> Result<Self, ImageError> {
        check(bytes, DYNAMIC_COOKIE, 36, "dynamic header")?;
        let mut parent_id = [0; 16];
        parent_id.copy_from_slice(&bytes[40..56]);
        let header = Self {
            table_at: u64_at(bytes, 16),
            entries: u32_at(bytes, 28),
            block_size: u32_at(bytes, 32),
            parent_id,
        };
        if !header.block_size.is_power_of_two() || u64::from(header.block_size) < SECTOR {
            return Err(malformed(format!("blocks cannot have {} bytes", header.block_size)));
        }
        if header.entries > MOST_ENTRIES {
            return Err(malformed(format!("its table has {} entries", header.entries)));
        }
        if u64::from(header.entries) * u64::from(header.block_size) < footer.size {
            return Err(malformed("its table does not cover the disk"));
        }
        Ok(header)
    }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::malformed(FORMAT, reason)
}

fn check(bytes: &[u8], cookie: [u8; 8], sum_at: usize, part: &str) -> Result<(), ImageError> {
    if !bytes.starts_with(&cookie) {
        return Err(malformed(format!("there is no {part} where one is due")));
    }
    if checksum(bytes, sum_at) != u32_at(bytes, sum_at) {
        return Err(malformed(format!("the checksum of the {part} is wrong")));
    }
    Ok(())
}

/// The complement of the sum of all bytes, those of the checksum itself left out.
fn checksum(bytes: &[u8], sum_at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    !(sum(bytes) - sum(&bytes[sum_at..sum_at + 4]))
}

/// Cylinders, heads and sectors for a disk of that size, by the rule in the format's description.
fn geometry(size: u64) -> [u8; 4] {
    let sectors = (size / SECTOR).min(65_535 * 16 * 255);
    let (per_track, heads, tracks);
    if sectors >= 65_535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, sectors / 255);
    } else {
        let wanted = (sectors / 17).div_ceil(1024).max(4);
        if wanted <= 16 && sectors / 17 < wanted * 1024 {
            (per_track, heads, tracks) = (17, wanted, sectors / 17);
        } else if sectors / 31 < 16 * 1024 {
            (per_track, heads, tracks) = (31, 16, sectors / 31);
        } else {
            (per_track, heads, tracks) = (63, 16, sectors / 63);
        }
    }
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX).to_be_bytes();
    let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    [cylinders[0], cylinders[1], small(heads), small(per_track)]
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_a_round_trip() {
        let footer =
            Footer { kind: Kind::Dynamic, size: 7 << 20, header_at: 512, unique_id: [9; 16] };
        assert_eq!(Footer::parse(&footer.to_bytes()).unwrap(), footer);
        let header = DynamicHeader {
            table_at: 1536,
            entries: 4,
            block_size: BLOCK_SIZE,
            parent_id: [3; 16],
        };
        assert_eq!(DynamicHeader::parse(&header.to_bytes(), &footer).unwrap(), header);
    }

    #[test]
    fn one_wrong_bit_anywhere_is_noticed() {
        let footer = Footer { kind: Kind::Dynamic, size: 512, header_at: 512, unique_id: [1; 16] };
        let good = footer.to_bytes();
        for bit in 0..FOOTER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::parse(&bad).is_err(), "bit {bit}");
        }
    }
}
