//! VM images: a VM with its disks as one stream, in the format XVA.
//!
//! ```no_run
//! use std::fs::File;
//!
//! use xenapi::image::Compression;
//! use xenapi::{Client, Ref, Source, class};
//!
//! # async fn example(
//! #     client: &Client, vm: Ref<class::Vm>, sr: Ref<class::Sr>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let image = client.export_vm(&vm).compression(Compression::Zstd).await?;
//! image.save(File::create("vm.xva")?).await?;
//!
//! let vms = client.import_vm(Source::file(File::open("vm.xva")?)?).storage(&sr).await?;
//! println!("{} and its snapshots", vms[0]);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use crate::class;
use crate::client::Client;
use crate::transfer::{
    Direction, Download, Fetch, Form, Meter, Report, Source, Target, TransferError,
    TransferFailure, TransferProgress, Upload, unstarted, with_storage,
};
use crate::transport::Endpoint;
use crate::wire::Ref;

/// How an image is compressed. Imports find out by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By gzip, which every server has.
    Gzip,
    /// By zstd, which is far faster, and which servers have since 7.6.
    Zstd,
}

impl Client {
    /// Reads a VM with its disks. It must be halted or suspended, or a template or a snapshot.
    pub fn export_vm(&self, vm: &Ref<class::Vm>) -> VmExport {
        VmExport {
            client: self.clone(),
            vm: vm.clone(),
            compression: Compression::None,
            patience: self.timeout(),
            report: None,
        }
    }

    /// Makes VMs of an image: the one that was exported, and one for each of its snapshots in it.
    pub fn import_vm(&self, image: Source) -> VmImport {
        VmImport {
            client: self.clone(),
            image,
            storage: None,
            restore: false,
            force: false,
            patience: self.timeout(),
            report: None,
        }
    }
}

/// An export of a VM that has not begun. Awaiting it gives the bytes as they come.
#[must_use = "an export does nothing until it is awaited"]
pub struct VmExport {
    client: Client,
    vm: Ref<class::Vm>,
    compression: Compression,
    patience: Duration,
    report: Option<Report>,
}

impl VmExport {
    /// Compresses the image.
    pub fn compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Gives up when nothing moves for so long, instead of the client's own timeout. Time that the reader
    /// takes does not count.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls this whenever something has moved. It is called while bytes are read, so it should be quick.
    pub fn on_progress(self, report: impl FnMut(TransferProgress) + Send + 'static) -> Self {
        Self { report: Some(Box::new(report)), ..self }
    }

    async fn run(self) -> Result<Download, TransferError> {
        let Self { client, vm, compression, patience, report } = self;
        let object = vm.to_string();
        let hosts = match client.attached().await {
            // A host that does not have the disks says which has.
            Ok((master, _)) => [master],
            Err(error) => return Err(unstarted(Direction::VmExport, object, error.into())),
        };
        let target = Target::new("/export").with("ref", &object);
        let target = match compression {
            Compression::None => target,
            Compression::Gzip => target.with("use_compression", "true"),
            Compression::Zstd => target.with("use_compression", "zstd"),
        };
        let fetch = Fetch {
            client: &client,
            direction: Direction::VmExport,
            object,
            hosts: &hosts,
            target,
            length: None,
            patience,
            meter: Meter::new(None, report),
        };
        fetch.start().await
    }
}

impl IntoFuture for VmExport {
    type Output = Result<Download, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for VmExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmExport")
            .field("vm", &self.vm)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// An import of an image that has not begun. Awaiting it does it, and gives the new VMs.
///
/// If the future is dropped, the connection is closed and the task cancelled and destroyed; the server
/// then takes away what it had made.
#[must_use = "an import does nothing until it is awaited"]
pub struct VmImport {
    client: Client,
    image: Source,
    storage: Option<Ref<class::Sr>>,
    restore: bool,
    force: bool,
    patience: Duration,
    report: Option<Report>,
}

impl VmImport {
    /// Where the disks go: the pool's default storage, unless set.
    pub fn storage(self, storage: &Ref<class::Sr>) -> Self {
        Self { storage: Some(storage.clone()), ..self }
    }

    /// Brings back the very VM that was exported, with its MAC addresses and UUIDs, instead of a copy.
    pub fn restore(self) -> Self {
        Self { restore: true, ..self }
    }

    /// Goes on where the image asks for something that this pool does not have.
    pub fn force(self) -> Self {
        Self { force: true, ..self }
    }

    /// Gives up when nothing moves for so long, instead of the client's own timeout.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls this whenever something has moved. It is called between reading and sending, so it should be
    /// quick.
    pub fn on_progress(self, report: impl FnMut(TransferProgress) + Send + 'static) -> Self {
        Self { report: Some(Box::new(report)), ..self }
    }

    async fn run(self) -> Result<Vec<Ref<class::Vm>>, TransferError> {
        let Self { client, mut image, storage, restore, force, patience, report } = self;
        let object = storage.as_ref().map_or_else(|| "the pool's default".into(), Ref::to_string);
        let hosts = match hosts(&client, storage.as_ref()).await {
            Ok(hosts) => hosts,
            Err(reason) => return Err(unstarted(Direction::VmImport, object, reason)),
        };
        let meter = Meter::new(Some(image.length()), report);
        let upload = Upload {
            client: &client,
            direction: Direction::VmImport,
            object: &object,
            hosts: &hosts,
            target: target(storage.as_ref(), restore, force),
            form: Form::Whole,
            patience,
            meter: &meter,
        };
        upload.run(&mut image).await
    }
}

fn target(storage: Option<&Ref<class::Sr>>, restore: bool, force: bool) -> Target {
    let mut target = Target::new("/import");
    if let Some(storage) = storage {
        target = target.with("sr_id", &storage.to_string());
    }
    for (name, wanted) in [("restore", restore), ("force", force)] {
        if wanted {
            target = target.with(name, "true");
        }
    }
    target
}

async fn hosts(
    client: &Client,
    storage: Option<&Ref<class::Sr>>,
) -> Result<Vec<Endpoint>, TransferFailure> {
    match storage {
        Some(storage) => with_storage(client, storage).await,
        None => Ok(vec![client.attached().await?.0]),
    }
}

impl IntoFuture for VmImport {
    type Output = Result<Vec<Ref<class::Vm>>, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for VmImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmImport")
            .field("image", &self.image)
            .field("storage", &self.storage)
            .field("restore", &self.restore)
            .field("force", &self.force)
            .finish_non_exhaustive()
    }
}
