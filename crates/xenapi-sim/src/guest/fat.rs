//! A reader of FAT12, FAT16 and FAT32 volumes: the label, and files in the root directory.
//!
//! Images come from strangers. Whatever they say is checked before it is used, every chain of clusters
//! ends after as many steps as the volume has clusters, and no more is held than the caller allows.

use std::io::{self, Read, Seek, SeekFrom};

/// Entries looked at in the root directory: what a hostile one has beyond is not found.
const MOST_ENTRIES: usize = 4096;
const ENTRY: usize = 32;

const END_OF_DIRECTORY: u8 = 0x00;
const DELETED: u8 = 0xe5;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// Why a volume could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum FatError {
    #[error("it is not a FAT volume: {0}")]
    NotFat(&'static str),
    #[error("its FAT is damaged: {0}")]
    Damaged(&'static str),
    #[error("`{name}` has {size} bytes, more than the {longest} that are read")]
    TooLong { name: String, size: u64, longest: u64 },
    #[error("it could not be read")]
    Read(#[from] io::Error),
}

/// The layout of a volume, from its boot sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    kind: Kind,
    sector: u64,
    cluster: u64,
    table_at: u64,
    table_bytes: u64,
    root: Root,
    data_at: u64,
    clusters: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Area { at: u64, bytes: u64 },
    Chain { first: u32 },
}

impl Layout {
    fn parse(boot: &[u8; 512]) -> Result<Self, FatError> {
        let byte = |at: usize| u64::from(boot[at]);
        let short = |at: usize| byte(at) | byte(at + 1) << 8;
        let long = |at: usize| short(at) | short(at + 2) << 16;
        let or = |first: u64, second: u64| if first == 0 { second } else { first };
        if boot[510..] != [0x55, 0xaa] {
            return Err(FatError::NotFat("its first sector has no boot signature"));
        }
        let (sector, per_cluster, reserved) = (short(11), byte(13), short(14));
        if ![512, 1024, 2048, 4096].contains(&sector) || !per_cluster.is_power_of_two() {
            return Err(FatError::NotFat("its sizes of sectors and clusters make no sense"));
        }
        let tables = byte(16);
        let root_bytes = short(17) * ENTRY as u64;
        let sectors = or(short(19), long(32));
        let table_sectors = or(short(22), long(36));
        if reserved == 0 || tables == 0 || table_sectors == 0 {
            return Err(FatError::NotFat("it has no table"));
        }
        let root_at = reserved + tables * table_sectors;
        let data = root_at + root_bytes.div_ceil(sector);
        let Some(data_sectors) = sectors.checked_sub(data) else {
            return Err(FatError::NotFat("it is smaller than its own table"));
        };
        let clusters = u32::try_from(data_sectors / per_cluster)
            .map_err(|_| FatError::NotFat("it has too many clusters"))?;
        let kind = match clusters {
            0..4085 => Kind::Fat12,
            4085..65_525 => Kind::Fat16,
            65_525.. => Kind::Fat32,
        };
        let root = match kind {
            Kind::Fat12 | Kind::Fat16 => Root::Area { at: root_at * sector, bytes: root_bytes },
            Kind::Fat32 => Root::Chain { first: u32::try_from(long(44)).unwrap_or(0) },
        };
        Ok(Self {
            kind,
            sector,
            cluster: per_cluster * sector,
            table_at: reserved * sector,
            table_bytes: table_sectors * sector,
            root,
            data_at: data * sector,
            clusters,
        })
    }

    fn holds(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }
}

/// A file in the root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    first: u32,
    size: u64,
}

/// An open volume.
#[derive(Debug)]
pub(super) struct Volume<D> {
    image: D,
    layout: Layout,
    label: Option<String>,
    entries: Vec<Entry>,
}

impl<D: Read + Seek> Volume<D> {
    /// Reads the boot sector and the root directory.
    pub(super) fn open(mut image: D) -> Result<Self, FatError> {
        let mut boot = [0; 512];
        image.seek(SeekFrom::Start(0))?;
        image.read_exact(&mut boot).map_err(|_| FatError::NotFat("it has no first sector"))?;
        let layout = Layout::parse(&boot)?;
        let mut volume = Self { image, layout, label: None, entries: Vec::new() };
        let root = volume.root_directory()?;
        (volume.label, volume.entries) = parse_directory(&root, layout.kind);
        Ok(volume)
    }

    /// The volume's label, as its root directory has it: one that only the boot sector has is not seen
    /// by guests either.
    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The contents of a file in the root directory; `None` when there is none of that name.
    pub(super) fn file(&mut self, name: &str, longest: u64) -> Result<Option<Vec<u8>>, FatError> {
        let wanted = |entry: &&Entry| entry.name.eq_ignore_ascii_case(name);
        let Some(entry) = self.entries.iter().find(wanted).cloned() else { return Ok(None) };
        if entry.size > longest {
            return Err(FatError::TooLong { name: entry.name, size: entry.size, longest });
        }
        let wanted = usize::try_from(entry.size).unwrap_or(usize::MAX);
        let mut contents = self.chain(entry.first, wanted)?;
        if contents.len() < wanted {
            return Err(FatError::Damaged("a file ends before its size"));
        }
        contents.truncate(wanted);
        Ok(Some(contents))
    }

    fn root_directory(&mut self) -> Result<Vec<u8>, FatError> {
        let most = MOST_ENTRIES * ENTRY;
        match self.layout.root {
            Root::Area { at, bytes } => {
                let mut root = vec![0; usize::try_from(bytes).unwrap_or(most).min(most)];
                self.read_at(at, &mut root)?;
                Ok(root)
            }
            Root::Chain { first } => self.chain(first, most),
        }
    }

    /// Reads the clusters of a chain until it ends or has given `wanted` bytes.
    fn chain(&mut self, first: u32, wanted: usize) -> Result<Vec<u8>, FatError> {
        let mut contents = Vec::new();
        let mut cluster = first;
        let mut steps = 0;
        while contents.len() < wanted && self.layout.holds(cluster) {
            if steps == self.layout.clusters {
                return Err(FatError::Damaged("a chain of clusters goes in circles"));
            }
            steps += 1;
            let at = self.layout.data_at + u64::from(cluster - 2) * self.layout.cluster;
            let start = contents.len();
            let piece = usize::try_from(self.layout.cluster).unwrap_or(0).min(wanted - start);
            contents.resize(start + piece, 0);
            self.read_at(at, &mut contents[start..])?;
            cluster = self.next(cluster)?;
        }
        Ok(contents)
    }

    /// What the table says to follow a cluster; for the last one, a number that no cluster has.
    fn next(&mut self, cluster: u32) -> Result<u32, FatError> {
        let (at, bytes) = match self.layout.kind {
            Kind::Fat12 => (u64::from(cluster) * 3 / 2, 2),
            Kind::Fat16 => (u64::from(cluster) * 2, 2),
            Kind::Fat32 => (u64::from(cluster) * 4, 4),
        };
        if at + bytes > self.layout.table_bytes {
            return Err(FatError::Damaged("its table is too short"));
        }
        let mut value = [0; 4];
        self.read_at(self.layout.table_at + at, &mut value[..usize::from(bytes == 4) * 2 + 2])?;
        let value = u32::from_le_bytes(value);
        Ok(match self.layout.kind {
            Kind::Fat12 if cluster.is_multiple_of(2) => value & 0xfff,
            Kind::Fat12 => value >> 4,
            Kind::Fat16 => value,
            Kind::Fat32 => value & 0x0fff_ffff,
        })
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), FatError> {
        self.image.seek(SeekFrom::Start(at))?;
        self.image.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FatError::Damaged("it is cut short"),
            _ => FatError::Read(error),
        })
    }
}

/// The label and the files of a directory.
fn parse_directory(bytes: &[u8], kind: Kind) -> (Option<String>, Vec<Entry>) {
    let mut label = None;
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for entry in bytes.chunks_exact(ENTRY) {
        let attributes = entry[11];
        match entry[0] {
            END_OF_DIRECTORY => break,
            DELETED => long = LongName::default(),
            _ if attributes & 0x3f == LONG_NAME => long.push(entry),
            _ if attributes & VOLUME_LABEL != 0 => {
                long = LongName::default();
                label.get_or_insert_with(|| text(&entry[..11]));
            }
            _ if attributes & DIRECTORY != 0 => long = LongName::default(),
            _ => {
                let short = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                let high = if kind == Kind::Fat32 { short(20) << 16 } else { 0 };
                let name = std::mem::take(&mut long).finish(&entry[..11]);
                let name = name.unwrap_or_else(|| short_name(&entry[..11]));
                let size = u64::from(short(28) | short(30) << 16);
                entries.push(Entry { name, first: high | short(26), size });
            }
        }
    }
    (label, entries)
}

/// A long name, gathered from the entries before the one that it belongs to.
#[derive(Default)]
struct LongName {
    /// The pieces, the last first, as they are stored.
    pieces: Vec<[u16; 13]>,
    checksum: u8,
    /// The number that the next piece must have.
    next: u8,
}

impl LongName {
    fn push(&mut self, entry: &[u8]) {
        let (number, checksum) = (entry[0], entry[13]);
        if number & 0x40 != 0 {
            *self = Self { pieces: Vec::new(), checksum, next: number & 0x3f };
        }
        // At most 20 pieces: a name has no more than 255 characters.
        if self.next == 0
            || number & 0x3f != self.next
            || checksum != self.checksum
            || number & 0x3f > 20
        {
            *self = Self::default();
            return;
        }
        self.next -= 1;
        let mut piece = [0; 13];
        let at = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, at) in piece.iter_mut().zip(at) {
            *unit = u16::from_le_bytes([entry[at], entry[at + 1]]);
        }
        self.pieces.push(piece);
    }

    /// The name, if it is whole and belongs to this short one.
    fn finish(self, short: &[u8]) -> Option<String> {
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.pieces.is_empty() || self.next != 0 || sum != self.checksum {
            return None;
        }
        let units = self.pieces.iter().rev().flatten().copied().take_while(|unit| *unit != 0);
        Some(char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect())
    }
}

fn short_name(bytes: &[u8]) -> String {
    let (base, extension) = (text(&bytes[..8]), text(&bytes[8..]));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// Padded text; what is not ASCII is of no interest here.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};

    use super::*;

    fn image(size: usize, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = Cursor::new(vec![0; size]);
        let options = FormatVolumeOptions::new().volume_label(*b"cidata     ");
        // Small clusters, so that a volume of the third kind need not be large.
        format_volume(&mut image, options.bytes_per_cluster(512)).unwrap();
        let volume = FileSystem::new(&mut image, FsOptions::new()).unwrap();
        for (name, contents) in files {
            volume.root_dir().create_file(name).unwrap().write_all(contents).unwrap();
        }
        volume.unmount().unwrap();
        image.into_inner()
    }

    fn open(image: &[u8]) -> Result<Volume<Cursor<&[u8]>>, FatError> {
        Volume::open(Cursor::new(image))
    }

    #[test]
    fn volumes_of_every_kind_are_read() {
        let long = vec![b'x'; 100_000];
        let files: [(&str, &[u8]); 3] =
            [("user-data", b"#cloud-config\n"), ("meta-data", &long), ("SHORT.TXT", b"s")];
        let sizes = [(1 << 20, Kind::Fat12), (10 << 20, Kind::Fat16), (40 << 20, Kind::Fat32)];
        for (size, kind) in sizes {
            let image = image(size, &files);
            let mut volume = open(&image).unwrap();
            assert_eq!(volume.layout.kind, kind);
            assert_eq!(volume.label(), Some("cidata"));
            for (name, contents) in files {
                let found = volume.file(&name.to_ascii_uppercase(), 1 << 20).unwrap();
                assert!(found.unwrap() == contents, "{name} in {size}");
            }
            assert_eq!(volume.file("user-dat", 1 << 20).unwrap(), None);
        }
    }

    #[test]
    fn a_file_longer_than_allowed_is_refused_by_its_name() {
        let image = image(1 << 20, &[("user-data", &[7; 5000])]);
        let error = open(&image).unwrap().file("user-data", 4999).unwrap_err();
        assert!(matches!(&error, FatError::TooLong { size: 5000, .. }), "{error}");
    }

    #[test]
    fn a_chain_that_goes_in_circles_ends() {
        let mut image = image(1 << 20, &[("user-data", &[7; 5000])]);
        let mut volume = open(&image).unwrap();
        let (table, first) = (volume.layout.table_at, volume.entries[0].first);
        assert!(volume.layout.kind == Kind::Fat12 && first % 2 == 0, "as the next line needs it");
        let at = usize::try_from(table + u64::from(first) * 3 / 2).unwrap();
        image[at] = first.to_le_bytes()[0];
        image[at + 1] &= 0xf0;
        volume = open(&image).unwrap();
        volume.entries[0].size = 1 << 30;
        let error = volume.file("user-data", u64::MAX).unwrap_err();
        assert!(matches!(error, FatError::Damaged(_)), "{error}");
    }

    #[test]
    fn no_change_of_a_byte_makes_the_reader_panic() {
        let good = image(1 << 20, &[("user-data", &[7; 5000]), ("meta-data", b"instance-id: 1\n")]);
        let table_end = 40 * 512;
        for at in (0..512).chain(512..table_end) {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                if let Ok(mut volume) = open(&bad) {
                    let _ = volume.file("user-data", 1 << 20);
                    let _ = volume.file("meta-data", 1 << 20);
                }
            }
        }
    }

    #[test]
    fn what_is_no_fat_volume_is_refused() {
        for bad in [&b""[..], b"short", &[0; 512], &[0xff; 4096]] {
            assert!(matches!(open(bad), Err(FatError::NotFat(_))));
        }
    }
}
