//! A directory for one test, with files whose state tells whether they were touched.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that is gone when the test is over. Its path is free of links.
#[derive(Debug)]
pub struct Scratch {
    // Held for its clean-up.
    _directory: TempDir,
    path: PathBuf,
    is_open: bool,
}

/// What can be seen of a file from outside: whatever changed it, changed one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    contents: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    modified: (i64, i64),
}

impl Scratch {
    /// An empty directory.
    ///
    /// # Panics
    ///
    /// When none can be made.
    #[expect(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir(), false)
    }

    /// An empty directory below another, where every user of this machine may read and write whatever is
    /// made by the methods here.
    ///
    /// # Panics
    ///
    /// When none can be made.
    pub fn open_to_all(above: &Path) -> Self {
        Self::below(above, true)
    }

    fn below(above: &Path, is_open: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("bioxen-test-").tempdir_in(above);
        let directory = directory.expect("a temporary directory can be made");
        let path = directory.path().canonicalize().expect("the directory is there");
        let scratch = Self { _directory: directory, path, is_open };
        scratch.open_up(&scratch.path, 0o777);
        scratch
    }

    /// Lets everybody at it, where this is such a directory.
    fn open_up(&self, path: &Path, mode: u32) {
        if self.is_open {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, mode).expect("its owner may change it");
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, whether that is there or not.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file and returns its path; directories on the way are made.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        self.make_directories(path.parent().expect("it is in the directory"));
        fs::write(&path, contents).expect("a file can be written");
        self.open_up(&path, 0o666);
        path
    }

    /// Makes a directory and returns its path.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        self.make_directories(&path);
        path
    }

    fn make_directories(&self, path: &Path) {
        fs::create_dir_all(path).expect("a directory can be made");
        for made in path.ancestors().take_while(|above| *above != self.path) {
            self.open_up(made, 0o777);
        }
    }

    /// Makes a symbolic link and returns its path.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn link(&self, name: &str, target: impl AsRef<Path>) -> PathBuf {
        let path = self.at(name);
        std::os::unix::fs::symlink(target, &path).expect("a link can be made");
        path
    }

    /// The names of what is directly in it, sorted.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).expect("the directory can be read");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.sort();
        names
    }
}

impl Seen {
    /// What can be seen of a file now; `None` when it is not there.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self {
            contents: fs::read(path).unwrap_or_default(),
            mode: metadata.permissions().mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}
