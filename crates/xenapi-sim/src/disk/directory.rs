//! The directory of disks.
//!
//! A disk is the file `<name>.raw`. One that is being made carries another ending and takes its name
//! by a rename, so that a disk is there in full or not at all, whenever the process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::{DiskId, DiskStore};
use rustix::fs::{FlockOperation, flock, ioctl_ficlone};

use super::file::Disk;
use super::{DiskError, raw};

const ENDING: &str = "raw";
const UNFINISHED: &str = "new";
const LOCK: &str = "lock";
const TEMPORARY: &str = "xenapi-sim-disks-";

/// A directory that holds disks. No other process can open it meanwhile.
#[derive(Debug)]
pub struct DiskDirectory {
    directory: PathBuf,
    /// Whether it goes with this value.
    temporary: bool,
    // Held for its lock.
    _lock: File,
}

impl Drop for DiskDirectory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.directory)
        {
            tracing::debug!(%error, "the next temporary directory's maker removes this one");
        }
    }
}

impl DiskDirectory {
    /// Opens the directory, which is made if need be, and removes what was left unfinished in it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(file("make", &directory))?;
        let path = directory.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(file("open", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DiskError::DirectoryInUse { path: directory.clone() })?;
        let store = Self { directory, temporary: false, _lock: lock };
        for path in store.files(UNFINISHED)? {
            fs::remove_file(&path).map_err(file("remove", &path))?;
        }
        Ok(store)
    }

    /// A directory for temporary files that is removed when this is dropped. Those that were left by
    /// processes that are no more are removed now.
    pub fn temporary() -> Result<Self, DiskError> {
        let base = std::env::temp_dir();
        for entry in fs::read_dir(&base).map_err(file("list", &base))?.flatten() {
            let own = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
            // One that is in use, or somebody else's, stays.
            if own && let Ok(mut left) = Self::open(entry.path()) {
                left.temporary = true;
            }
        }
        let name = uuid::Uuid::new_v4().simple();
        // It gets a name that others look for when it is locked already: they would remove it.
        let mut made = Self::open(base.join(format!(".{TEMPORARY}{name}")))?;
        made.temporary = true;
        let path = base.join(format!("{TEMPORARY}{name}"));
        fs::rename(&made.directory, &path).map_err(file("rename", &made.directory))?;
        made.directory = path;
        Ok(made)
    }

    /// The names of all disks, sorted.
    pub fn ids(&self) -> Result<Vec<DiskId>, DiskError> {
        let name = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok().map(DiskId);
        let mut ids: Vec<DiskId> = self.files(ENDING)?.iter().filter_map(name).collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes every disk that `keep` does not want, and returns the names of those removed: for a
    /// start, when what a crash left is known from the objects that survived.
    pub fn retain(&self, mut keep: impl FnMut(DiskId) -> bool) -> Result<Vec<DiskId>, DiskError> {
        let unwanted: Vec<DiskId> = self.ids()?.into_iter().filter(|id| !keep(*id)).collect();
        for id in &unwanted {
            self.remove(*id)?;
        }
        Ok(unwanted)
    }

    /// Makes a disk of `size` bytes, all zero.
    pub fn create(&self, id: DiskId, size: u64) -> Result<Disk, DiskError> {
        self.make(id, |file| file.set_len(size))?;
        self.disk(id)
    }

    /// Makes the disk `to` with the contents that `from` has now. Shares the room where the file system
    /// can do that, and copies what is not a hole where it cannot.
    pub fn clone_disk(&self, from: DiskId, to: DiskId) -> Result<Disk, DiskError> {
        let original = self.disk(from)?;
        let size = original.size()?;
        self.make(to, |file| {
            if ioctl_ficlone(file, original.file()).is_ok() {
                return Ok(());
            }
            file.set_len(size)?;
            let copy = Disk::new(file.try_clone()?);
            raw::copy_extents(&original, &copy).map_err(io::Error::other)
        })?;
        self.disk(to)
    }

    /// Opens a disk.
    pub fn disk(&self, id: DiskId) -> Result<Disk, DiskError> {
        let path = self.path(id);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Disk::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DiskError::NotFound { disk: id })
            }
            Err(error) => Err(file("open", &path)(error)),
        }
    }

    /// Makes a disk larger. What is added reads as zeros. A repeat changes nothing.
    pub fn resize(&self, id: DiskId, wanted: u64) -> Result<(), DiskError> {
        let disk = self.disk(id)?;
        let size = disk.size()?;
        if wanted < size {
            return Err(DiskError::CannotShrink { disk: id, size, wanted });
        }
        disk.file().set_len(wanted).map_err(file("resize", &self.path(id)))
    }

    /// Removes a disk. Whoever has it open can go on reading and writing; nobody else finds it.
    pub fn remove(&self, id: DiskId) -> Result<(), DiskError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DiskError::NotFound { disk: id },
            _ => file("remove", &path)(error),
        })
    }

    /// Opens a disk, which is made with this size if it is not there.
    fn disk_or_new(&self, id: DiskId, size: u64) -> Result<Disk, DiskError> {
        match self.create(id, size) {
            Ok(disk) => Ok(disk),
            Err(DiskError::AlreadyExists { .. }) => self.disk(id),
            Err(error) => Err(error),
        }
    }

    fn make(
        &self,
        id: DiskId,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        let path = self.path(id);
        let unfinished = path.with_extension(UNFINISHED);
        let taken = |_| DiskError::AlreadyExists { disk: id };
        let open = OpenOptions::new().read(true).write(true).create_new(true).open(&unfinished);
        let new = open.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(error),
            _ => file("make", &unfinished)(error),
        })?;
        let made = fill(&new)
            .map_err(file("make", &unfinished))
            // Fails where the name is taken, as a rename would not.
            .and_then(|()| fs::hard_link(&unfinished, &path).map_err(taken));
        let removed = fs::remove_file(&unfinished).map_err(file("remove", &unfinished));
        made.and(removed)
    }

    fn path(&self, id: DiskId) -> PathBuf {
        self.directory.join(id.0.to_string()).with_extension(ENDING)
    }

    fn files(&self, ending: &str) -> Result<Vec<PathBuf>, DiskError> {
        let entries = fs::read_dir(&self.directory).map_err(file("list", &self.directory))?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
    }
}

/// For a pool: a disk that has no file yet is one of zeros, and what is written makes it longer.
impl DiskStore for DiskDirectory {
    fn create(&self, disk: DiskId, size: u64) -> io::Result<()> {
        self.disk_or_new(disk, size)?;
        Ok(())
    }

    fn clone_disk(&self, from: DiskId, to: DiskId) -> io::Result<()> {
        match self.clone_disk(from, to) {
            Ok(_) | Err(DiskError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn resize(&self, disk: DiskId, size: u64) -> io::Result<()> {
        self.disk_or_new(disk, size)?;
        Ok(self.resize(disk, size)?)
    }

    fn read_at(&self, disk: DiskId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let open = match self.disk(disk) {
            Ok(open) => open,
            Err(DiskError::NotFound { .. }) => {
                buffer.fill(0);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let size = open.size()?;
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, rest) = buffer.split_at_mut(there.min(buffer.len()));
        open.read_at(offset.min(size), there)?;
        rest.fill(0);
        Ok(())
    }

    fn write_at(&self, disk: DiskId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        let open = self.disk_or_new(disk, end)?;
        if open.size()? < end {
            self.resize(disk, end)?;
        }
        Ok(open.write_at(offset, bytes)?)
    }

    fn next_data(&self, disk: DiskId, from: u64) -> io::Result<Option<u64>> {
        match self.disk(disk) {
            Ok(disk) => Ok(disk.next_extent(from)?.map(|extent| extent.offset)),
            Err(DiskError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn used(&self, disk: DiskId) -> io::Result<u64> {
        match self.disk(disk) {
            Ok(disk) => Ok(disk.allocated()?),
            Err(DiskError::NotFound { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn destroy(&self, disk: DiskId) -> io::Result<()> {
        match self.remove(disk) {
            Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use uuid::Uuid;

    fn store() -> (TempDir, DiskDirectory) {
        let directory = TempDir::new().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        (directory, store)
    }

    fn random() -> DiskId {
        DiskId(Uuid::new_v4())
    }

    #[test]
    fn a_new_disk_is_all_zero_and_takes_no_room() {
        let (_directory, store) = store();
        let disk = store.create(random(), 10 << 30).unwrap();
        assert_eq!(disk.size().unwrap(), 10 << 30);
        assert_eq!(disk.allocated().unwrap(), 0);
        let mut read = [1; 100];
        disk.read_at((10 << 30) - 100, &mut read).unwrap();
        assert_eq!(read, [0; 100]);
    }

    #[test]
    fn what_is_written_as_zeros_gives_its_room_back() {
        let (_directory, store) = store();
        let disk = store.create(random(), 1 << 20).unwrap();
        disk.write_at(0, &vec![7; 1 << 20]).unwrap();
        assert_eq!(disk.allocated().unwrap(), 1 << 20);
        disk.write_at(4096, &vec![0; 1 << 19]).unwrap();
        assert_eq!(disk.allocated().unwrap(), 1 << 19);
        assert_eq!(
            disk.next_extent(4096).unwrap().unwrap(),
            crate::disk::Extent { offset: 4096 + (1 << 19), length: (1 << 19) - 4096 }
        );
    }

    #[test]
    fn a_clone_has_the_contents_of_its_origin_and_a_life_of_its_own() {
        let (_directory, store) = store();
        let (one, two) = (random(), random());
        let disk = store.create(one, 1 << 30).unwrap();
        disk.write_at(5 << 20, b"shared").unwrap();
        let clone = store.clone_disk(one, two).unwrap();
        assert!(clone.allocated().unwrap() <= 8192);
        disk.write_at(5 << 20, b"origin").unwrap();
        clone.write_at((5 << 20) + 6, b"!").unwrap();
        let mut read = [0; 7];
        clone.read_at(5 << 20, &mut read).unwrap();
        assert_eq!(&read, b"shared!");
        store.remove(one).unwrap();
        assert_eq!(store.ids().unwrap(), [two]);
    }

    #[test]
    fn a_disk_grows_and_does_not_shrink() {
        let (_directory, store) = store();
        let id = random();
        store.create(id, 4096).unwrap().write_at(0, b"kept").unwrap();
        store.resize(id, 1 << 20).unwrap();
        store.resize(id, 1 << 20).unwrap();
        assert_eq!(store.disk(id).unwrap().size().unwrap(), 1 << 20);
        let refused = store.resize(id, 4096).unwrap_err();
        assert!(matches!(refused, DiskError::CannotShrink { wanted: 4096, .. }), "{refused}");
    }

    #[test]
    fn names_are_taken_once_and_unknown_ones_are_refused() {
        let (_directory, store) = store();
        let id = random();
        store.create(id, 1).unwrap();
        assert!(matches!(store.create(id, 1), Err(DiskError::AlreadyExists { .. })));
        assert!(matches!(store.clone_disk(id, id), Err(DiskError::AlreadyExists { .. })));
        store.remove(id).unwrap();
        assert!(matches!(store.remove(id), Err(DiskError::NotFound { .. })));
        assert!(matches!(store.disk(id), Err(DiskError::NotFound { .. })));
    }

    #[test]
    fn nothing_is_read_or_written_past_the_end() {
        let (_directory, store) = store();
        let disk = store.create(random(), 10).unwrap();
        assert!(matches!(disk.write_at(8, b"abc"), Err(DiskError::OutOfRange { size: 10, .. })));
        assert!(matches!(disk.read_at(u64::MAX, &mut [0]), Err(DiskError::OutOfRange { .. })));
        assert_eq!(disk.size().unwrap(), 10);
    }

    #[test]
    fn a_start_removes_what_was_left_unfinished_or_is_not_wanted() {
        let (directory, store) = store();
        let (wanted, unwanted) = (random(), random());
        store.create(wanted, 1).unwrap();
        store.create(unwanted, 1).unwrap();
        fs::write(directory.path().join(format!("{}.new", random().0)), "half").unwrap();
        drop(store);
        let store = DiskDirectory::open(directory.path()).unwrap();
        assert_eq!(store.retain(|id| id == wanted).unwrap(), [unwanted]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the disk and the lock");
    }

    #[test]
    fn a_pool_reads_zeros_where_nothing_was_written() {
        let (_directory, store) = store();
        let store: &dyn DiskStore = &store;
        let (one, two) = (random(), random());
        store.clone_disk(one, two).unwrap();
        store.destroy(two).unwrap();
        store.write_at(one, 10, b"abc").unwrap();
        store.create(one, 5).unwrap();
        let mut read = [9; 6];
        store.read_at(one, 8, &mut read).unwrap();
        assert_eq!(&read, b"\0\0abc\0");
        store.resize(one, 1 << 20).unwrap();
        store.read_at(two, 8, &mut read).unwrap();
        assert_eq!((read, store.used(two).unwrap()), ([0; 6], 0));
    }

    #[test]
    fn a_temporary_directory_goes_with_its_disks_and_with_what_a_crash_left() {
        let left = std::env::temp_dir().join(format!("{TEMPORARY}{}", Uuid::new_v4().simple()));
        fs::create_dir(&left).unwrap();
        let used = DiskDirectory::temporary().unwrap();
        used.create(random(), 1).unwrap();
        let other = DiskDirectory::temporary().unwrap();
        assert!(!left.exists());
        let (kept, path) = (used.directory.clone(), other.directory.clone());
        assert!(kept.exists() && path.exists());
        drop(other);
        assert!(kept.exists() && !path.exists());
        drop(used);
        assert!(!kept.exists());
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let (directory, _store) = store();
        let refused = DiskDirectory::open(directory.path()).unwrap_err();
        assert!(matches!(refused, DiskError::DirectoryInUse { .. }), "{refused}");
    }
}
