//! Disks: their bytes in and out, raw or as VHD.
//!
//! ```no_run
//! use std::fs::File;
//!
//! use xenapi::{Client, Ref, Source, class};
//!
//! # async fn example(client: &Client, disk: Ref<class::Vdi>) -> Result<(), Box<dyn std::error::Error>> {
//! let image = Source::file(File::open("debian.raw")?)?;
//! client
//!     .import_disk(&disk, image)
//!     .skip_zeros()
//!     .on_progress(|progress| eprintln!("{} of {:?}", progress.done, progress.total))
//!     .await?;
//!
//! let saved = client.export_disk(&disk).await?.save(File::create("copy.raw")?).await?;
//! println!("{} bytes, {} of them not zero", saved.length, saved.written);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use tracing::debug;

use crate::client::Client;
use crate::transfer::{
    Direction, Download, Fetch, Form, Meter, Report, Source, Target, TransferError,
    TransferFailure, TransferProgress, Upload, unstarted, with_storage,
};
use crate::transport::Endpoint;
use crate::wire::{Map, Ref};
use crate::{class, vdi};

/// How the bytes of a disk are arranged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// As the VM sees them.
    #[default]
    Raw,
    /// A VHD image, which leaves out what was never written, and can be the difference to another disk.
    Vhd,
}

impl Format {
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vhd",
        }
    }
}

impl Client {
    /// Writes a source into a disk, from its start on. What the source is too short for stays as it was.
    ///
    /// The disk must not be in use by a VM.
    pub fn import_disk(&self, disk: &Ref<class::Vdi>, source: Source) -> DiskImport {
        DiskImport {
            client: self.clone(),
            disk: disk.clone(),
            source,
            format: Format::Raw,
            skip_zeros: false,
            through_master: false,
            patience: self.timeout(),
            report: None,
        }
    }

    /// Reads all of a disk, or what was changed in it since another.
    pub fn export_disk(&self, disk: &Ref<class::Vdi>) -> DiskExport {
        DiskExport {
            client: self.clone(),
            disk: disk.clone(),
            format: Format::Raw,
            base: None,
            patience: self.timeout(),
            report: None,
        }
    }
}

/// An import into a disk that has not begun. Awaiting it does it.
///
/// It has succeeded once the server's task has. If the future is dropped, the connection is closed, the
/// task is cancelled and destroyed, and the disk holds what had arrived.
#[must_use = "an import does nothing until it is awaited"]
pub struct DiskImport {
    client: Client,
    disk: Ref<class::Vdi>,
    source: Source,
    format: Format,
    skip_zeros: bool,
    through_master: bool,
    patience: Duration,
    report: Option<Report>,
}

/// What an import moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// How long the source was.
    pub length: u64,
    /// How many bytes were sent for it.
    pub sent: u64,
}

impl DiskImport {
    /// The format of the source: raw, unless set.
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Leaves out what is zero in a raw source. **The disk must be new**: where something was written to
    /// it before, that would show through.
    ///
    /// It is all sent nevertheless where the server does not know how to leave out something, or where
    /// the storage does not give out disks full of zeros.
    pub fn skip_zeros(self) -> Self {
        Self { skip_zeros: true, ..self }
    }

    /// Sends it to the pool's master without asking about the disk first: for a caller who knows that the
    /// disk is large enough, and that the master is connected to its storage. All of it is sent then.
    pub fn through_master(self) -> Self {
        Self { through_master: true, ..self }
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

    async fn run(self) -> Result<Imported, TransferError> {
        let Self { client, disk, mut source, format, skip_zeros, through_master, patience, report } =
            self;
        let (length, object) = (source.length(), disk.to_string());
        let meter = Meter::new(Some(length), report);
        let may_skip = skip_zeros && format == Format::Raw;
        let fits = (format == Format::Raw).then_some(length);
        let plan = async {
            if through_master {
                return Ok((Form::Whole, vec![client.attached().await?.0]));
            }
            plan_import(&client, &disk, fits, may_skip).await
        };
        let plan = plan.await;
        let (form, hosts) =
            plan.map_err(|reason| unstarted(Direction::DiskImport, object.clone(), reason))?;
        let upload = |form| Upload {
            client: &client,
            direction: Direction::DiskImport,
            object: &object,
            hosts: &hosts,
            target: target(&disk, format, form),
            form,
            patience,
            meter: &meter,
        };
        match upload(form).run::<()>(&mut source).await {
            Err(error) if form == Form::Frames && is_unknown(&error) => {
                debug!(disk = %object, %error, "sending zeros after all");
                upload(Form::Whole).run::<()>(&mut source).await?;
            }
            result => result?,
        }
        Ok(Imported { length, sent: meter.progress().transferred })
    }
}

/// How to send it and to whom.
async fn plan_import(
    client: &Client,
    disk: &Ref<class::Vdi>,
    fits: Option<u64>,
    may_skip: bool,
) -> Result<(Form, Vec<Endpoint>), TransferFailure> {
    let record = client.vdi().get_record(disk).await?;
    let size = size(&record);
    if let Some(length) = fits.filter(|length| *length > size) {
        // The server would only tell after some bytes too many.
        return Err(TransferFailure::DiskTooSmall { size, length });
    }
    let mut form = Form::Whole;
    if may_skip {
        let storage = client.sr().get_record(&record.sr).await?;
        if is_zeroed(&storage.r#type, &storage.sm_config, &record.sm_config) {
            form = Form::Frames;
        }
    }
    Ok((form, with_storage(client, &record.sr).await?))
}

fn target(disk: &Ref<class::Vdi>, format: Format, form: Form) -> Target {
    let target = Target::new("/import_raw_vdi").with("vdi", &disk.to_string());
    let target = target.with("format", format.as_str());
    match form {
        Form::Whole => target,
        Form::Frames => target.with("chunked", "true"),
    }
}

fn size(record: &vdi::Record) -> u64 {
    record.virtual_size.try_into().unwrap_or_default()
}

/// Whether the host refused a request as one that it does not understand, before anything was read.
fn is_unknown(error: &TransferError) -> bool {
    error.bytes == 0
        && matches!(
            error.reason,
            TransferFailure::Refused { status: 400 | 404 | 405 | 406 | 415 | 500 | 501, .. }
        )
}

/// Whether new disks of such storage read as zeros. Where the server itself would not rely on it, neither
/// is it relied on here.
fn is_zeroed(
    storage: &str,
    storage_config: &Map<String, String>,
    disk_config: &Map<String, String>,
) -> bool {
    let is = |config: &Map<String, String>, key: &str, value: &str| {
        config.get(key).is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    match storage.to_ascii_lowercase().as_str() {
        "lvm" | "lvmoiscsi" | "lvmohba" | "lvmofcoe" => {
            !is(disk_config, "type", "raw") && is(storage_config, "use_vhd", "true")
        }
        "equal" => !is(storage_config, "allocation", "thick"),
        "cslg" => false,
        _ => true,
    }
}

impl IntoFuture for DiskImport {
    type Output = Result<Imported, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for DiskImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskImport")
            .field("disk", &self.disk)
            .field("source", &self.source)
            .field("format", &self.format)
            .field("skip_zeros", &self.skip_zeros)
            .finish_non_exhaustive()
    }
}

/// An export of a disk that has not begun. Awaiting it gives the bytes as they come.
#[must_use = "an export does nothing until it is awaited"]
pub struct DiskExport {
    client: Client,
    disk: Ref<class::Vdi>,
    format: Format,
    base: Option<Ref<class::Vdi>>,
    patience: Duration,
    report: Option<Report>,
}

impl DiskExport {
    /// The format to export in: raw, unless set.
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Exports, as VHD, only what is different in this older snapshot of the same disk.
    pub fn base(self, base: &Ref<class::Vdi>) -> Self {
        Self { format: Format::Vhd, base: Some(base.clone()), ..self }
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
        let Self { client, disk, format, base, patience, report } = self;
        let object = disk.to_string();
        let (size, hosts) = plan_export(&client, &disk)
            .await
            .map_err(|reason| unstarted(Direction::DiskExport, object.clone(), reason))?;
        let length = (format == Format::Raw).then_some(size);
        let target = Target::new("/export_raw_vdi").with("vdi", &object);
        let mut target = target.with("format", format.as_str());
        if let Some(base) = &base {
            target = target.with("base", &base.to_string());
        }
        let fetch = Fetch {
            client: &client,
            direction: Direction::DiskExport,
            object,
            hosts: &hosts,
            target,
            length,
            patience,
            meter: Meter::new(length, report),
        };
        fetch.start().await
    }
}

async fn plan_export(
    client: &Client,
    disk: &Ref<class::Vdi>,
) -> Result<(u64, Vec<Endpoint>), TransferFailure> {
    let record = client.vdi().get_record(disk).await?;
    Ok((size(&record), with_storage(client, &record.sr).await?))
}

impl IntoFuture for DiskExport {
    type Output = Result<Download, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for DiskExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskExport")
            .field("disk", &self.disk)
            .field("format", &self.format)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_only_where_new_disks_have_them() {
        let none = Map::new();
        let config = |key: &str, value: &str| Map::from([(key.to_owned(), value.to_owned())]);
        assert!(is_zeroed("nfs", &none, &none));
        assert!(is_zeroed("LVM", &config("use_vhd", "true"), &none));
        assert!(!is_zeroed("lvmoiscsi", &none, &none));
        assert!(!is_zeroed("lvm", &config("use_vhd", "true"), &config("type", "raw")));
        assert!(!is_zeroed("equal", &config("allocation", "Thick"), &none));
        assert!(!is_zeroed("cslg", &none, &none));
    }
}
