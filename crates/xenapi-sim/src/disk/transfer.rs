//! `PUT /import_raw_vdi` and `GET /export_raw_vdi`: disks in and out of the pool.
//!
//! The server answers an upload before it reads it, and reads whatever comes; how it went, only the task
//! tells.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pipe::{BodyReader, BodyWriter, body_pipe};
use super::{ImageError, Medium, StoredDisk};
use super::{export_raw, export_vhd, import_chunked, import_raw, import_vhd};
use crate::calls::vdi;
use crate::database::{Database, Row};
use crate::error::{ApiError, bare, error, handle_invalid, internal};
use crate::http::{Answer, Exchange};
use crate::inner::Inner;
use crate::lifecycle;
use crate::schema::Schema;
use crate::store::DiskId;
use crate::tasks;
use crate::value::{Ref, Value};

/// What is read from a connection at once.
const PIECE: usize = 256 << 10;

/// How a disk travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Raw,
    Chunked,
    Vhd,
}

impl Format {
    fn of(exchange: &Exchange) -> Option<Self> {
        let chunked = exchange.head.query("chunked").is_some_and(|value| value != "false");
        match exchange.head.query("format") {
            None | Some("raw") if chunked => Some(Self::Chunked),
            None | Some("raw") => Some(Self::Raw),
            Some("vhd") => Some(Self::Vhd),
            Some(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Raw | Self::Chunked => "raw",
            Self::Vhd => "vhd",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Raw | Self::Chunked => "application/octet-stream",
            Self::Vhd => "application/vhd",
        }
    }

    fn import(self, disk: &dyn Medium, body: BodyReader) -> Result<u64, ImageError> {
        match self {
            Self::Raw => import_raw(disk, body),
            Self::Chunked => import_chunked(disk, body),
            Self::Vhd => import_vhd(disk, body),
        }
    }

    fn export(
        self,
        disk: &dyn Medium,
        base: Option<&dyn Medium>,
        body: BodyWriter,
    ) -> Result<u64, ImageError> {
        match self {
            Self::Raw | Self::Chunked => export_raw(disk, body),
            Self::Vhd => export_vhd(disk, base, body),
        }
    }
}

/// A task of a transfer. One that is dropped before its end has failed.
pub(super) struct Transfer {
    inner: Arc<Inner>,
    pub(super) task: Ref,
    done: bool,
}

impl Transfer {
    /// The task that the request names, or one of its own.
    pub(super) fn begin(exchange: &Exchange, label: &str) -> Self {
        let inner = Arc::clone(&exchange.inner);
        let given = exchange.head.query("task_id").and_then(Ref::parse);
        let given = given.filter(|task| inner.read().find("task", *task).is_some());
        let task = given.unwrap_or_else(|| {
            let task = tasks::create(&inner, exchange.host, label, "");
            if let Some(parent) = exchange.head.query("subtask_of").and_then(Ref::parse) {
                inner.write().set("task", task, "subtask_of", parent);
            }
            task
        });
        Self { inner, task, done: false }
    }

    pub(super) fn finish(mut self, outcome: &Result<Value, ApiError>) {
        self.done = true;
        tasks::finish(&self.inner, self.task, outcome);
    }

    /// Waits until the task is cancelled.
    pub(super) async fn cancelled(&self) -> ApiError {
        let mut cancelled = self.inner.cancellable(self.task);
        // The sender lives as long as the task runs.
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
        tasks::cancelled(self.task)
    }

    fn progress(&self, done: u64, whole: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let share = done as f64 / whole.max(1) as f64;
        tasks::progress(&self.inner, self.task, share.min(1.0));
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.done {
            let error = internal("the transfer was given up");
            tasks::finish(&self.inner, self.task, &Err(error));
        }
    }
}

/// A disk that is attached to the host's own VM for a transfer.
struct Attached {
    inner: Arc<Inner>,
    vdi: Ref,
    vbd: Ref,
}

impl Attached {
    /// Attaches a disk, unless it is in use.
    fn attach(inner: &Arc<Inner>, host: usize, vdi: Ref, writes: bool) -> Result<Self, ApiError> {
        let mut db = inner.write();
        let row = db.row("VDI", vdi)?.clone();
        if lifecycle::in_use(&db, &row) {
            return Err(error("VDI_IN_USE", [vdi]));
        }
        let host = db.row("host", inner.hosts[host].host)?.clone();
        let vbd = db.insert(
            "VBD",
            vec![
                ("VM", host.reference("control_domain").into()),
                ("VDI", vdi.into()),
                ("mode", if writes { "RW" } else { "RO" }.into()),
                ("type", "Disk".into()),
                ("currently_attached", true.into()),
            ],
        );
        lifecycle::refresh_vdi(&mut db, vdi);
        Ok(Self { inner: Arc::clone(inner), vdi, vbd })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut db = self.inner.write();
        db.delete("VBD", self.vbd);
        lifecycle::refresh_vdi(&mut db, self.vdi);
    }
}

/// The object that a part of the query names, by reference or uuid.
pub(crate) fn named(
    db: &Database,
    class: &str,
    text: Option<&str>,
) -> Result<Option<Ref>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let reference = Ref::parse(text).filter(|reference| db.find(class, *reference).is_some());
    let by_uuid = || db.by_uuid(Schema::get().class(class), text).ok();
    reference.or_else(by_uuid).map(Some).ok_or_else(|| handle_invalid(class, text))
}

/// The disk of a row.
pub(super) fn stored(inner: &Inner, row: &Row) -> StoredDisk {
    let size = u64::try_from(row.int("virtual_size")).unwrap_or(0);
    StoredDisk::new(Arc::clone(&inner.store), DiskId(row.uuid()), size)
}

/// A host that sees this storage: the one that was asked, if it does.
pub(super) fn host_for(inner: &Inner, asked: usize, sr: Ref) -> Result<usize, ApiError> {
    let db = inner.read();
    let plugged: Vec<Ref> = (db.row("SR", sr)?.get("PBDs").ref_items())
        .filter_map(|pbd| db.find("PBD", pbd))
        .filter(|pbd| pbd.flag("currently_attached"))
        .map(|pbd| pbd.reference("host"))
        .collect();
    let sees = |host: &usize| plugged.contains(&inner.hosts[*host].host);
    let all = std::iter::once(asked).chain(0..inner.hosts.len());
    all.into_iter().find(sees).ok_or_else(|| error("SR_HAS_NO_PBDS", [sr]))
}

/// Sends the client to the host that can do it.
pub(crate) async fn redirect(exchange: &mut Exchange, host: usize) -> io::Result<()> {
    let address = &exchange.inner.hosts[host].address;
    let port = exchange.head.header("host").and_then(|host| host.rsplit_once(':'));
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let scheme = if exchange.inner.options.http { "http" } else { "https" };
    let query: Vec<String> = (exchange.head.query.iter())
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    let path = &exchange.head.path;
    let location = format!("{scheme}://{address}{port}{path}?{}", query.join("&"));
    exchange.answer(&Answer::html(302, "Found", &location).with("Location", location.clone())).await
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:~".contains(&byte);
    text.bytes().fold(String::new(), |done, byte| {
        if plain(byte) {
            done + &char::from(byte).to_string()
        } else {
            format!("{done}%{byte:02X}")
        }
    })
}

/// Answers `PUT /import_raw_vdi`.
pub(crate) async fn import_raw_vdi(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let Some(format) = Format::of(&exchange).filter(|_| !exchange.head.is_chunked()) else {
        return exchange.answer(&Answer::html(404, "Not Found", "That cannot be read.")).await;
    };
    let length = exchange.head.header("content-length").and_then(|it| it.trim().parse().ok());
    let target = match Target::find(&exchange, format, length) {
        Ok(Some(target)) => target,
        Ok(None) => {
            let answer = Answer::html(400, "Bad Request", "A disk or a storage must be named.");
            return exchange.answer(&answer).await;
        }
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let host = match host_for(&exchange.inner, exchange.host, target.sr) {
        Ok(host) => host,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    if host != exchange.host {
        return redirect(&mut exchange, host).await;
    }
    let transfer = Transfer::begin(&exchange, "VDI.import");
    accept_upload(&mut exchange, transfer.task).await?;
    let outcome = match length {
        // What a client sends to learn where it is sent.
        Some(0) if exchange.head.query("vdi").is_some() => target.reference(&exchange),
        _ => receive(&mut exchange, target, format, length, &transfer).await,
    };
    transfer.finish(&outcome.map(Value::from));
    exchange.stream.shutdown().await
}

/// Tells that something keeps the request from being answered, and its task.
pub(crate) async fn refuse(exchange: &mut Exchange, error: ApiError) -> io::Result<()> {
    let text = error.to_string();
    if let Some(task) = exchange.head.query("task_id").and_then(Ref::parse) {
        tasks::finish(&exchange.inner, task, &Err(error));
    }
    exchange.answer(&Answer::html(500, "Internal Error", &text)).await
}

/// The answer to an upload, which comes before it.
pub(super) async fn accept_upload(exchange: &mut Exchange, task: Ref) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nTask-Id: {task}\r\n\r\n");
    exchange.stream.write_all(head.as_bytes()).await?;
    exchange.stream.flush().await
}

/// Where an upload goes.
struct Target {
    /// The disk; nothing when one is to be made.
    vdi: Option<Ref>,
    sr: Ref,
    size: u64,
}

impl Target {
    fn find(
        exchange: &Exchange,
        format: Format,
        length: Option<u64>,
    ) -> Result<Option<Self>, ApiError> {
        let (db, head) = (exchange.inner.read(), &exchange.head);
        if let Some(vdi) = named(&db, "VDI", head.query("vdi"))? {
            let row = db.row("VDI", vdi)?;
            let size = u64::try_from(row.int("virtual_size")).unwrap_or(0);
            return Ok(Some(Self { vdi: Some(vdi), sr: row.reference("SR"), size }));
        }
        let sr = named(&db, "SR", head.query("sr_id").or_else(|| head.query("sr_uuid")))?;
        let size = length.filter(|_| format == Format::Raw);
        Ok(sr.zip(size).map(|(sr, size)| Self { vdi: None, sr, size }))
    }

    /// The disk, which is made if need be.
    fn reference(&self, exchange: &Exchange) -> Result<Ref, ApiError> {
        if let Some(vdi) = self.vdi {
            return Ok(vdi);
        }
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        let fields = vec![
            ("name_label", "Imported VDI".into()),
            ("SR", self.sr.into()),
            ("virtual_size", Value::Int(size)),
        ];
        vdi::insert(&mut exchange.inner.write(), fields)
    }
}

/// Reads an upload into a disk.
async fn receive(
    exchange: &mut Exchange,
    target: Target,
    format: Format,
    length: Option<u64>,
    transfer: &Transfer,
) -> Result<Ref, ApiError> {
    let vdi = target.reference(exchange)?;
    let _attached = Attached::attach(&exchange.inner, exchange.host, vdi, true)?;
    let disk = {
        let db = exchange.inner.read();
        stored(&exchange.inner, db.row("VDI", vdi)?)
    };
    let (writer, reader) = body_pipe();
    let mut import = tokio::task::spawn_blocking(move || format.import(&disk, reader));
    let whole = length.unwrap_or(target.size).min(target.size);
    let upload = async {
        tokio::select! {
            () = pump(exchange, writer, length, |done| transfer.progress(done, whole)) => import.await,
            // What knows its own end may come to it before the length that was announced.
            imported = &mut import => imported,
        }
    };
    let imported = tokio::select! {
        imported = upload => imported,
        cancelled = transfer.cancelled() => return Err(cancelled),
    };
    imported.map_err(internal)?.map_err(|error| failure(&error))?;
    Ok(vdi)
}

/// How a failed transfer is told.
pub(super) fn failure(error: &ImageError) -> ApiError {
    match error {
        ImageError::Disk(_) | ImageError::TooLong { .. } | ImageError::Malformed { .. } => {
            crate::error::error("VDI_IO_ERROR", [text_of(error)])
        }
        ImageError::Stream { .. } => internal(text_of(error)),
    }
}

fn text_of(error: &ImageError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Carries an upload into the pipe: as much as was announced, or until the client ends. One that ends
/// early has sent all that it had, as clients do who cannot know the length before.
pub(super) async fn pump(
    exchange: &mut Exchange,
    writer: BodyWriter,
    length: Option<u64>,
    mut progress: impl FnMut(u64),
) {
    let mut left = length.unwrap_or(u64::MAX);
    let mut done = 0;
    let mut told = std::time::Instant::now();
    let early = std::mem::take(&mut exchange.early);
    let mut next = early;
    loop {
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(next.len());
        next.truncate(fits);
        if !next.is_empty() {
            left -= fits as u64;
            done += fits as u64;
            // A reader that is gone has found something wrong, and says so itself.
            if writer.send(next.into()).await.is_err() {
                return;
            }
        }
        if left == 0 {
            return;
        }
        next = Vec::with_capacity(PIECE);
        match exchange.stream.read_buf(&mut next).await {
            Ok(0) => return,
            Ok(_) => {}
            // A client that breaks off has ended too, for all that can be told.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => return writer.fail(error).await,
        }
        if told.elapsed().as_millis() > 100 {
            told = std::time::Instant::now();
            progress(done);
        }
    }
}

/// Answers `GET /export_raw_vdi`.
pub(crate) async fn export_raw_vdi(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let Some(format) = Format::of(&exchange) else {
        return exchange.answer(&Answer::html(404, "Not Found", "That cannot be written.")).await;
    };
    let found = Source::find(&exchange);
    let source = match found {
        Ok(Some(source)) => source,
        Ok(None) => {
            return exchange
                .answer(&Answer::html(400, "Bad Request", "A disk must be named."))
                .await;
        }
        Err(error) => return refuse(&mut exchange, error).await,
    };
    match host_for(&exchange.inner, exchange.host, source.sr) {
        Ok(host) if host == exchange.host => {}
        Ok(host) => return redirect(&mut exchange, host).await,
        Err(error) => return refuse(&mut exchange, error).await,
    }
    let attached = match Attached::attach(&exchange.inner, exchange.host, source.vdi, false) {
        Ok(attached) => attached,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let transfer = Transfer::begin(&exchange, "VDI.export");
    let name = format!("{}.{}", source.uuid, format.name());
    let head = download_head("1.1", format.content_type(), &name, transfer.task);
    let Source { disk, base, vdi, .. } = source;
    let export = move |body: BodyWriter| {
        let base = base.as_ref().map(|base| base as &dyn Medium);
        format.export(&disk, base, body).map(drop)
    };
    let outcome = send(&mut exchange, &head, &transfer, export).await;
    drop(attached);
    transfer.finish(&outcome.map(|()| vdi.into()));
    exchange.stream.shutdown().await
}

/// Where a download comes from.
struct Source {
    vdi: Ref,
    uuid: uuid::Uuid,
    sr: Ref,
    disk: StoredDisk,
    base: Option<StoredDisk>,
}

impl Source {
    fn find(exchange: &Exchange) -> Result<Option<Self>, ApiError> {
        let db = exchange.inner.read();
        let Some(vdi) = named(&db, "VDI", exchange.head.query("vdi"))? else { return Ok(None) };
        let base = named(&db, "VDI", exchange.head.query("base"))?;
        let row = db.row("VDI", vdi)?;
        let base = base.and_then(|base| db.find("VDI", base));
        Ok(Some(Self {
            vdi,
            uuid: row.uuid(),
            sr: row.reference("SR"),
            disk: stored(&exchange.inner, row),
            base: base.map(|base| stored(&exchange.inner, base)),
        }))
    }
}

/// The head of an answer that goes on until the connection ends.
pub(super) fn download_head(version: &str, content_type: &str, name: &str, task: Ref) -> String {
    format!(
        "HTTP/{version} 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\
         Content-Type: {content_type}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Task-Id: {task}\r\n\r\n"
    )
}

/// Writes a head, and then what `export` makes.
pub(super) async fn send(
    exchange: &mut Exchange,
    head: &str,
    transfer: &Transfer,
    export: impl FnOnce(BodyWriter) -> Result<(), ImageError> + Send + 'static,
) -> Result<(), ApiError> {
    let gone = |error: io::Error| internal(format!("the client is gone: {error}"));
    exchange.stream.write_all(head.as_bytes()).await.map_err(gone)?;
    let (writer, mut reader) = body_pipe();
    let export = tokio::task::spawn_blocking(move || export(writer));
    let carried = async {
        while let Some(Ok(piece)) = reader.next().await {
            exchange.stream.write_all(&piece).await.map_err(gone)?;
        }
        exchange.stream.flush().await.map_err(gone)
    };
    tokio::select! {
        carried = carried => carried?,
        cancelled = transfer.cancelled() => return Err(cancelled),
    }
    drop(reader);
    match export.await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(_) => Err(bare("INTERNAL_ERROR")),
    }
}
