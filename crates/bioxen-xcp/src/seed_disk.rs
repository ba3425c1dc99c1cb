//! The disk on which a guest finds its [`Seed`]: a FAT volume labelled `cidata`.
//!
//! It is made in memory, as a whole disk without a partition table, which is where cloud-init's source
//! `NoCloud` looks. Its size is a multiple of 2 MiB, to which the pools' storage would round it anyway,
//! so that the disk's size is that of the image. The same seed makes the same bytes: serial number and
//! times are fixed.
//!
//! ```
//! use bioxen_xcp::cloud_init::{CloudInit, InstanceId};
//! use bioxen_xcp::seed_disk::SeedDisk;
//!
//! let seed = CloudInit::new().hostname("node".parse()?).seed(&InstanceId::new("vm-1")?)?;
//! let disk = SeedDisk::new(&seed);
//! assert_eq!(disk.bytes().len(), 2 << 20);
//! assert!(disk.used().len() < 100 << 10);
//! println!("{}", disk.digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io::{Cursor, Write as _};

use bioxen_core::Digest;
use fatfs::{
    Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider, format_volume,
};

use crate::cloud_init::Seed;

/// What sizes are multiples of: storage of the VHD kinds rounds up to it.
const GRAIN: usize = 2 << 20;

/// The size of a disk for a seed that holds no large files.
pub const SMALLEST: usize = GRAIN;

const CLUSTER: usize = 2048;
const SECTOR: usize = 512;

/// The volume's own structures at most, for each byte of the disk and besides: boot sector, root
/// directory, and two tables of at most 16 bits a cluster.
const TABLES: usize = CLUSTER / 4;
const STRUCTURES: usize = 64 << 10;

/// Both the boot sector and the root directory have it: cloud-init does not see one that only the
/// first has.
const LABEL: [u8; 11] = *b"cidata     ";

/// The volume's serial number, which nobody looks at.
const SERIAL: u32 = 0x00c1_da7a;

/// A disk image with a seed on it.
#[derive(Clone, PartialEq, Eq)]
pub struct SeedDisk {
    image: Vec<u8>,
    used: usize,
    digest: Digest,
}

impl SeedDisk {
    /// Makes the image.
    #[expect(clippy::missing_panics_doc, reason = "it is as large as the volume needs")]
    pub fn new(seed: &Seed) -> Self {
        let mut image = Cursor::new(vec![0; size(seed.files().map(|(_, content)| content.len()))]);
        write(&mut image, seed).expect("a volume in memory, large enough, can be written");
        let image = image.into_inner();
        let last = image.chunks(SECTOR).rposition(|sector| sector != [0; SECTOR]);
        let digest = Digest::of(&image);
        Self { used: last.map_or(0, |last| (last + 1) * SECTOR), digest, image }
    }

    /// The whole image.
    pub fn bytes(&self) -> &[u8] {
        &self.image
    }

    /// The image up to its last sector that is not zero. This is all that a new disk, which is zero,
    /// has to be sent: an import may be shorter than its disk.
    pub fn used(&self) -> &[u8] {
        &self.image[..self.used]
    }

    /// The digest of the whole image.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The whole image, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.image
    }
}

impl fmt::Debug for SeedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedDisk")
            .field("bytes", &self.image.len())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// How large a disk for files of these sizes is.
fn size(files: impl Iterator<Item = usize>) -> usize {
    let clusters: usize = files.map(|length| length.next_multiple_of(CLUSTER)).sum();
    (clusters + clusters / TABLES * 2 + STRUCTURES).next_multiple_of(GRAIN)
}

fn write(image: &mut Cursor<Vec<u8>>, seed: &Seed) -> std::io::Result<()> {
    let cluster = u32::try_from(CLUSTER).expect("it is small");
    let options =
        FormatVolumeOptions::new().bytes_per_cluster(cluster).volume_id(SERIAL).volume_label(LABEL);
    format_volume(&mut *image, options)?;
    let volume = FileSystem::new(image, FsOptions::new().time_provider(&Epoch))?;
    for (name, content) in seed.files() {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(content.as_bytes())?;
        file.flush()?;
    }
    volume.unmount()
}

/// The first moment that FAT knows.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time { hour: 0, min: 0, sec: 0, millis: 0 };
        DateTime { date: self.get_current_date(), time }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::cloud_init::{CloudInit, FileToWrite, InstanceId, LARGEST_SEED};

    fn seed(bytes: usize) -> Seed {
        let file = FileToWrite::new("/data", vec![b'A'; bytes]).unwrap();
        CloudInit::new().file(file).seed(&InstanceId::new("vm-1").unwrap()).unwrap()
    }

    #[test]
    fn the_files_come_back_from_the_disk_at_every_size() {
        // Of one kind of FAT and another, and at their border.
        let most = (LARGEST_SEED - 1000) / 4 * 3;
        for bytes in [0, 2_100_000, 4_200_000, 5_500_000, 6_300_000, 8_400_000, 11_500_000, most] {
            let seed = seed(bytes);
            let disk = SeedDisk::new(&seed);
            assert_eq!(disk.bytes().len() % GRAIN, 0);
            let mut copy = disk.used().to_vec();
            copy.resize(disk.bytes().len(), 0);
            assert!(copy == disk.bytes(), "the rest is zero");
            let volume = FileSystem::new(Cursor::new(copy), FsOptions::new()).unwrap();
            assert_eq!(volume.volume_label(), "cidata");
            let label = volume.read_volume_label_from_root_dir().unwrap();
            assert_eq!(label.as_deref(), Some("cidata"));
            for (name, content) in seed.files() {
                let mut found = String::new();
                volume.root_dir().open_file(name).unwrap().read_to_string(&mut found).unwrap();
                assert!(found == content, "{name} with {bytes} bytes");
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        let (one, other) = (SeedDisk::new(&seed(1)), SeedDisk::new(&seed(1)));
        assert!(one == other);
        assert_eq!(one.digest(), Digest::of(other.bytes()));
        assert_ne!(one.digest(), SeedDisk::new(&seed(2)).digest());
    }

    #[test]
    fn a_disk_without_need_for_more_has_two_mib() {
        assert_eq!(SeedDisk::new(&seed(100_000)).bytes().len(), 2 << 20);
    }
}
