//! What can go wrong with disks and images.

use std::io;
use std::path::PathBuf;

use crate::store::DiskId;

/// Why a disk could not be made, opened, changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// No disk has that name.
    #[error("there is no disk `{}`", disk.0)]
    NotFound {
        /// The name asked for.
        disk: DiskId,
    },
    /// A disk of that name is there already.
    #[error("there is a disk `{}` already", disk.0)]
    AlreadyExists {
        /// The name that is taken.
        disk: DiskId,
    },
    /// A read or write reaches past the end.
    #[error("bytes {offset} to {end} were asked for, and the disk has {size}")]
    OutOfRange {
        /// Where the access starts.
        offset: u64,
        /// Where it would end.
        end: u64,
        /// The disk's size.
        size: u64,
    },
    /// A disk can grow but not shrink.
    #[error("disk `{}` of {size} bytes cannot shrink to {wanted}", disk.0)]
    CannotShrink {
        /// The disk.
        disk: DiskId,
        /// Its size.
        size: u64,
        /// The size asked for.
        wanted: u64,
    },
    /// Another process uses the directory.
    #[error("the disks in `{}` are in use by another process", path.display())]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A read or write failed.
    #[error("could not {action} the disk")]
    Access {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an image could not be brought in or sent out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The disk could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The stream broke.
    #[error("the stream broke after {at} bytes")]
    Stream {
        /// How many bytes had gone through.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The stream holds more than the disk.
    #[error("the image goes on past the disk's {size} bytes")]
    TooLong {
        /// The disk's size.
        size: u64,
    },
    /// The stream is not what it should be.
    #[error("not a valid {format} image: {reason}")]
    Malformed {
        /// The format that was expected.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        let kind = match &error {
            DiskError::NotFound { .. } => io::ErrorKind::NotFound,
            DiskError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            DiskError::OutOfRange { .. } | DiskError::CannotShrink { .. } => {
                io::ErrorKind::InvalidInput
            }
            DiskError::DirectoryInUse { .. } => io::ErrorKind::ResourceBusy,
            DiskError::File { source, .. } | DiskError::Access { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

impl ImageError {
    pub(super) fn malformed(format: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { format, reason: reason.into() }
    }
}
