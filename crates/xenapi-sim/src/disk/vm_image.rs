//! `PUT /import` and `GET /export`: whole VMs in and out of the pool, as XVA images.
//!
//! `ova.xml` is an XML-RPC value: the version, and each object with the name by which the others refer to
//! it. Snapshots of a VM do not travel with it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use serde_json::Value as Raw;
use tokio::io::AsyncWriteExt;
use xenapi_model::{Qualifier, Type};

use super::pipe::body_pipe;
use super::transfer::{
    Transfer, accept_upload, download_head, failure, host_for, named, pump, redirect, refuse, send,
    stored,
};
use super::xva::{XvaDisk, XvaSink, export_xva, import_xva};
use super::{ImageError, Medium, StoredDisk};
use crate::calls::{vbd, vdi, vif, vm};
use crate::database::{Database, Row};
use crate::error::{ApiError, bare, error, internal};
use crate::http::{Answer, Exchange};
use crate::inner::Inner;
use crate::lifecycle;
use crate::schema::{Schema, typed};
use crate::store::DiskId;
use crate::value::{Ref, Value};
use crate::wire::xml;

/// The form of `ova.xml` that this is.
const EXPORT_VERSION: i64 = 2;

/// Answers `GET /export`.
pub(crate) async fn export(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let compressed = exchange.head.query("use_compression");
    if compressed.is_some_and(|value| !["false", "none"].contains(&value)) {
        let answer = Answer::html(400, "Bad Request", "compression is not simulated");
        return exchange.answer(&answer).await;
    }
    let packed = match Packed::of(&exchange) {
        Ok(Some(packed)) => packed,
        Ok(None) => {
            return exchange.answer(&Answer::html(400, "Bad Request", "A VM must be named.")).await;
        }
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let transfer = Transfer::begin(&exchange, "VM.export");
    let name = format!("{}.xva", packed.uuid);
    let head = download_head("1.0", "application/octet-stream", &name, transfer.task);
    let write = move |body| export_xva(&packed.metadata, &packed.disks, body);
    let outcome = send(&mut exchange, &head, &transfer, write).await;
    transfer.finish(&outcome.map(|()| Value::Void));
    exchange.stream.shutdown().await
}

/// A VM, ready to be sent.
struct Packed {
    uuid: uuid::Uuid,
    metadata: Vec<u8>,
    disks: Vec<XvaDisk>,
}

impl Packed {
    fn of(exchange: &Exchange) -> Result<Option<Self>, ApiError> {
        let (inner, head) = (&exchange.inner, &exchange.head);
        let db = inner.read();
        let text = head.query("ref").or_else(|| head.query("uuid"));
        let Some(vm) = named(&db, "VM", text)? else { return Ok(None) };
        let row = db.row("VM", vm)?;
        lifecycle::check(&db, row, "export")?;
        let objects = Objects::of(&db, row);
        let vdis = objects.rows.iter().filter(|(class, _)| *class == "VDI");
        let disks = vdis.map(|(_, vdi)| XvaDisk {
            directory: objects.names[&vdi.reference].clone(),
            disk: Box::new(stored(inner, vdi)),
        });
        let disks = disks.collect();
        Ok(Some(Self { uuid: row.uuid(), metadata: objects.metadata(), disks }))
    }
}

/// The objects that belong to a VM, and the names that they have in an image.
struct Objects {
    rows: Vec<(&'static str, Arc<Row>)>,
    names: HashMap<Ref, String>,
}

impl Objects {
    fn of(db: &Database, vm: &Arc<Row>) -> Self {
        let mut all = Self { rows: Vec::new(), names: HashMap::new() };
        all.add("VM", vm);
        for vbd in vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd)) {
            all.add("VBD", vbd);
            if vbd.text("type") == "Disk"
                && let Some(vdi) = db.find("VDI", vbd.reference("VDI"))
            {
                all.add("VDI", vdi);
                if let Some(sr) = db.find("SR", vdi.reference("SR")) {
                    all.add("SR", sr);
                }
            }
        }
        for vif in vm.get("VIFs").ref_items().filter_map(|vif| db.find("VIF", vif)) {
            all.add("VIF", vif);
            if let Some(network) = db.find("network", vif.reference("network")) {
                all.add("network", network);
            }
        }
        all
    }

    fn add(&mut self, class: &'static str, row: &Arc<Row>) {
        let name = format!("Ref:{}", self.rows.len());
        if self.names.try_insert_new(row.reference, name) {
            self.rows.push((class, row.clone()));
        }
    }

    /// The contents of `ova.xml`.
    fn metadata(&self) -> Vec<u8> {
        let version = Value::members(vec![
            ("hostname", "localhost".into()),
            ("date", "".into()),
            ("product_version", "8.3.0".into()),
            ("product_brand", "XCP-ng".into()),
            ("build_number", "cloud".into()),
            // The toolstack's own name stands in these two keys.
            (concat!("x", "api_major"), Value::Int(1)),
            (concat!("x", "api_minor"), Value::Int(20)),
            ("export_vsn", Value::Int(EXPORT_VERSION)),
        ]);
        let object = |(class, row): &(&'static str, Arc<Row>)| {
            let fields =
                row.members().into_iter().map(|(name, value)| (name, self.renamed(&value)));
            Value::members(vec![
                ("class", (*class).into()),
                ("id", self.names[&row.reference].as_str().into()),
                ("snapshot", Value::members(fields.collect())),
            ])
        };
        let objects = Value::set(self.rows.iter().map(object).collect());
        let mut xml = Vec::new();
        xml::write(&mut xml, &Value::members(vec![("version", version), ("objects", objects)]));
        xml
    }

    /// A value with the references of this image; others refer to nothing.
    fn renamed(&self, value: &Value) -> Value {
        match value {
            Value::Ref(reference) => match self.names.get(reference) {
                Some(name) => name.as_str().into(),
                None => Ref::NULL.into(),
            },
            Value::Set(items) => Value::set(items.iter().map(|item| self.renamed(item)).collect()),
            Value::Map(entries) => {
                let renamed =
                    |(key, value): &(Value, Value)| (self.renamed(key), self.renamed(value));
                Value::map(entries.iter().map(renamed).collect())
            }
            Value::Void
            | Value::String(_)
            | Value::Uuid(_)
            | Value::Int(_)
            | Value::Count(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Time(_)
            | Value::Struct(_)
            | Value::Record(_)
            | Value::Records(_) => value.clone(),
        }
    }
}

/// An insertion that keeps what is there.
trait InsertNew {
    fn try_insert_new(&mut self, key: Ref, value: String) -> bool;
}

impl InsertNew for HashMap<Ref, String> {
    fn try_insert_new(&mut self, key: Ref, value: String) -> bool {
        let new = !self.contains_key(&key);
        self.entry(key).or_insert(value);
        new
    }
}

/// Answers `PUT /import`.
pub(crate) async fn import(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let host = match storage(&exchange).and_then(|sr| host_for(&exchange.inner, exchange.host, sr))
    {
        Ok(host) => host,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    if host != exchange.host {
        return redirect(&mut exchange, host).await;
    }
    let transfer = Transfer::begin(&exchange, "VM.import");
    accept_upload(&mut exchange, transfer.task).await?;
    let outcome = receive(&mut exchange, &transfer).await;
    transfer.finish(&outcome.map(|vm| Value::refs([vm])));
    exchange.stream.shutdown().await
}

/// Where the disks of an import go.
fn storage(exchange: &Exchange) -> Result<Ref, ApiError> {
    if exchange.head.is_chunked() {
        return Err(bare("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"));
    }
    let (db, head) = (exchange.inner.read(), &exchange.head);
    let given = head.query("sr_id").or_else(|| head.query("sr_uuid"));
    if let Some(sr) = named(&db, "SR", given)? {
        return Ok(sr);
    }
    let default = db.row("pool", exchange.inner.pool)?.reference("default_SR");
    let found = db.find("SR", default).map(|row| row.reference);
    found.ok_or_else(|| error("DEFAULT_SR_NOT_FOUND", [default]))
}

async fn receive(exchange: &mut Exchange, transfer: &Transfer) -> Result<Ref, ApiError> {
    let mut unpacking = Unpacking {
        inner: Arc::clone(&exchange.inner),
        sr: storage(exchange)?,
        restore: exchange.head.query("restore") == Some("true"),
        disks: HashMap::new(),
        vm: None,
        vdis: Vec::new(),
        failed: None,
        kept: false,
    };
    let length = exchange.head.header("content-length").and_then(|it| it.trim().parse().ok());
    let (writer, reader) = body_pipe();
    let import = tokio::task::spawn_blocking(move || {
        let done = import_xva(reader, &mut unpacking);
        unpacking.finish(done)
    });
    let upload = async {
        pump(exchange, writer, length, |_| {}).await;
        import.await
    };
    tokio::select! {
        imported = upload => imported.map_err(internal)?,
        cancelled = transfer.cancelled() => Err(cancelled),
    }
}

/// A VM on its way in. What was made of it goes again unless it is kept.
struct Unpacking {
    inner: Arc<Inner>,
    sr: Ref,
    /// Whether it is the same VM as the one that left.
    restore: bool,
    /// The disks by their names in the image.
    disks: HashMap<String, StoredDisk>,
    vm: Option<Ref>,
    vdis: Vec<(Ref, DiskId)>,
    failed: Option<ApiError>,
    kept: bool,
}

impl XvaSink for Unpacking {
    fn metadata(&mut self, xml: &[u8]) -> Result<Vec<String>, ImageError> {
        let told = |reason| ImageError::malformed("XVA", reason);
        let objects = objects(xml).map_err(told)?;
        let inner = Arc::clone(&self.inner);
        let mut db = inner.write();
        if let Err(error) = self.unpack(&mut db, &objects) {
            let text = error.to_string();
            self.failed = Some(error);
            return Err(told(text));
        }
        Ok(self.disks.keys().cloned().collect())
    }

    fn disk(&mut self, directory: &str) -> Result<Option<Box<dyn Medium>>, ImageError> {
        let disk = self.disks.get(directory).cloned();
        Ok(disk.map(|disk| Box::new(disk) as Box<dyn Medium>))
    }
}

/// An object of an image: its class, its name, and its fields.
struct Object {
    class: String,
    name: String,
    fields: Raw,
}

/// The objects that `ova.xml` tells of.
fn objects(xml: &[u8]) -> Result<Vec<Object>, String> {
    let text = std::str::from_utf8(xml).map_err(|_| "`ova.xml` is not UTF-8")?;
    let value = text.trim_start_matches("<?xml version=\"1.0\"?>").trim_start();
    let start = "<methodCall><methodName>ova</methodName><params><param>";
    let call = format!("{start}{value}</param></params></methodCall>");
    let request = xml::decode(call.as_bytes()).map_err(|error| format!("`ova.xml`: {error}"))?;
    let list = request.params.first().and_then(|ova| ova["objects"].as_array());
    let list = list.ok_or("`ova.xml` lists no objects")?;
    let object = |raw: &Raw| {
        let text = |key: &str| raw[key].as_str().map(str::to_owned);
        Some(Object { class: text("class")?, name: text("id")?, fields: raw["snapshot"].clone() })
    };
    Ok(list.iter().filter_map(object).collect())
}

impl Object {
    /// The fields that a constructor takes, without those that refer to others.
    fn own_fields(&self, class: &str) -> Vec<(&'static str, Value)> {
        let schema = Schema::get();
        let fields = schema.classes[schema.class(class)].fields.iter();
        let own = fields.filter(|field| {
            let refers = |kind: &Type| matches!(kind, Type::Ref(_));
            let set = |kind: &Type| matches!(kind, Type::Set(item) if refers(item));
            field.qualifier != Qualifier::ReadOnly && !refers(field.kind) && !set(field.kind)
        });
        own.filter_map(|field| {
            let raw = self.fields.get(field.name)?;
            typed(field.kind, raw).ok().map(|value| (field.name, value))
        })
        .collect()
    }

    fn reference(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    fn is(&self, field: &str, value: &str) -> bool {
        self.reference(field) == Some(value)
    }
}

impl Unpacking {
    fn unpack(&mut self, db: &mut Database, objects: &[Object]) -> Result<(), ApiError> {
        let of = |class: &'static str| objects.iter().filter(move |object| object.class == class);
        let vm = of("VM").find(|vm| vm.fields["is_a_snapshot"] != true);
        let vm = vm.ok_or_else(|| internal("the image holds no VM"))?;
        let mut fields = vm.own_fields("VM");
        fields.retain(|(name, _)| *name != "power_state");
        if self.restore
            && let Some(uuid) = vm.reference("uuid")
            && db.by_uuid(Schema::get().class("VM"), uuid).is_err()
        {
            fields.push(("uuid", uuid.into()));
        }
        if !self.restore {
            renew_addresses(&mut fields);
        }
        let made = vm::insert(db, fields);
        self.vm = Some(made);
        let mut vdis = HashMap::new();
        for disk in of("VDI") {
            let mut fields = disk.own_fields("VDI");
            fields.push(("SR", self.sr.into()));
            let vdi = vdi::insert(db, fields)?;
            let row = db.row("VDI", vdi)?;
            self.vdis.push((vdi, DiskId(row.uuid())));
            self.disks.insert(disk.name.clone(), stored(&self.inner, row));
            vdis.insert(disk.name.clone(), vdi);
        }
        for drive in of("VBD").filter(|drive| drive.is("VM", &vm.name)) {
            let mut fields = drive.own_fields("VBD");
            fields.retain(|(name, _)| !["currently_attached", "device"].contains(name));
            let vdi = drive.reference("VDI").and_then(|name| vdis.get(name));
            fields.retain(|(name, _)| *name != "empty");
            fields.push(("empty", vdi.is_none().into()));
            fields.push(("VDI", vdi.copied().unwrap_or(Ref::NULL).into()));
            fields.push(("VM", made.into()));
            vbd::insert(db, fields)?;
        }
        for interface in of("VIF").filter(|interface| interface.is("VM", &vm.name)) {
            let mut fields = interface.own_fields("VIF");
            let own = if self.restore {
                &["currently_attached"][..]
            } else {
                &["currently_attached", "MAC"]
            };
            fields.retain(|(name, _)| !own.contains(name));
            let network = of("network").find(|network| interface.is("network", &network.name));
            fields.push(("network", network_for(db, network)?.into()));
            fields.push(("VM", made.into()));
            vif::insert(db, fields)?;
        }
        lifecycle::refresh(db, made);
        Ok(())
    }

    /// The VM, once all of it is there; else why it is not.
    fn finish(mut self, done: Result<(), ImageError>) -> Result<Ref, ApiError> {
        if let Err(problem) = done {
            let own = self.failed.take();
            return Err(own.unwrap_or_else(|| match problem {
                ImageError::Malformed { .. } => error("IMPORT_ERROR", [problem.to_string()]),
                ImageError::Disk(_) | ImageError::Stream { .. } | ImageError::TooLong { .. } => {
                    failure(&problem)
                }
            }));
        }
        self.kept = true;
        self.vm.ok_or_else(|| internal("the image holds no VM"))
    }
}

/// Takes out what a VM's hardware addresses are computed from: another VM has others.
fn renew_addresses(fields: &mut [(&'static str, Value)]) {
    for (_, value) in fields.iter_mut().filter(|(name, _)| *name == "other_config") {
        *value = value.without(&"mac_seed".into());
    }
}

/// The network like this one: of the same uuid, else of the same name, else any.
fn network_for(db: &Database, wanted: Option<&Object>) -> Result<Ref, ApiError> {
    let text =
        |field: &str| wanted.and_then(|network| network.reference(field)).unwrap_or_default();
    if let Ok(same) = db.by_uuid(Schema::get().class("network"), text("uuid")) {
        return Ok(same);
    }
    let named = db.rows("network").find(|row| row.text("name_label") == text("name_label"));
    let found = named.or_else(|| db.rows("network").next()).map(|row| row.reference);
    found.ok_or_else(|| internal("the pool has no network"))
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut db = self.inner.write();
        if let Some(vm) = self.vm
            && let Some(row) = db.find("VM", vm).cloned()
        {
            for (class, field) in [("VBD", "VBDs"), ("VIF", "VIFs")] {
                row.refs(field).into_iter().for_each(|part| db.delete(class, part));
            }
            db.delete("VM_metrics", row.reference("metrics"));
            db.delete("VM", vm);
        }
        for (vdi, disk) in &self.vdis {
            vdi::forget(&mut db, *vdi);
            if let Err(error) = self.inner.store.destroy(*disk) {
                tracing::warn!(%error, "a disk of a failed import stays");
            }
        }
    }
}
