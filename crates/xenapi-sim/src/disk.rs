//! Disks of simulated VMs: sparse files in a directory, and the formats in which they travel.
//!
//! [`DiskDirectory`] makes, clones, resizes and removes them; a [`Disk`] reads and writes one. What was
//! never written, or was written as zeros, takes no room. Everything here blocks on the file system
//! and knows no task, no session and no Xen API object: callers bring the names, and keep a disk that
//! is in use from being removed.
//!
//! ```
//! use uuid::Uuid;
//! use xenapi_sim::disk::DiskDirectory;
//! use xenapi_sim::store::DiskId;
//!
//! let directory = tempfile::tempdir()?;
//! let store = DiskDirectory::open(directory.path())?;
//! let (original, clone) = (DiskId(Uuid::from_u128(1)), DiskId(Uuid::from_u128(2)));
//! let disk = store.create(original, 1 << 30)?;
//! disk.write_at(4096, b"genome")?;
//! store.clone_disk(original, clone)?;
//!
//! let mut read = [0; 6];
//! store.disk(clone)?.read_at(4096, &mut read)?;
//! assert_eq!(&read, b"genome");
//! assert!(store.disk(clone)?.allocated()? < 1 << 20);
//! # Ok::<(), std::io::Error>(())
//! ```

mod chunked;
mod directory;
mod error;
mod file;
mod medium;
mod pipe;
mod raw;
pub(crate) mod transfer;

mod vhd;
pub(crate) mod vm_image;
mod xva;

pub use chunked::import_chunked;
pub use directory::DiskDirectory;
pub use error::{DiskError, ImageError};
pub use file::{Disk, Extent};
pub use medium::{Medium, StoredDisk};
pub use pipe::{BodyReader, BodyWriter, body_pipe};
pub use raw::{export_raw, import_raw};
pub use vhd::{export_vhd, import_vhd};
pub use xva::{XvaDisk, XvaSink, export_xva, import_xva};
