//! `GET /rrd_updates`: what hosts and VMs measured, made up but moving.
//!
//! A value depends on the object and the time alone, so that asking twice for the same time answers
//! the same.

pub(crate) mod archive;

use std::io;

use uuid::Uuid;

use crate::calls::vm::load;
use crate::database::{Database, Row};
use crate::http::{Answer, Exchange};
use crate::value::Ref;

/// Rows that are kept: seconds between them, and for how many seconds.
const ARCHIVES: [(i64, i64); 4] = [(5, 600), (60, 7_200), (3_600, 604_800), (86_400, 31_536_000)];

/// Something that is measured.
struct Source {
    /// Its name in the legend: `AVERAGE:vm:UUID:cpu0`.
    legend: String,
    kind: Kind,
}

/// How a value comes about.
enum Kind {
    Load(Uuid),
    Constant(f64),
}

impl Source {
    fn at(&self, time: i64) -> f64 {
        match self.kind {
            Kind::Load(uuid) => load(uuid, time),
            Kind::Constant(value) => value,
        }
    }
}

/// What was asked for.
struct Wanted {
    start: i64,
    end: i64,
    step: i64,
    consolidation: Vec<String>,
    with_host: bool,
    vm: Option<String>,
}

/// Answers `GET /rrd_updates`.
pub(crate) async fn rrd_updates(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let now = exchange.inner.clock.now();
    let Some(wanted) = wanted(&exchange, now) else {
        let answer = Answer::html(400, "Bad Request", "a start is needed, in seconds since 1970");
        return exchange.answer(&answer).await;
    };
    let sources = {
        let db = exchange.inner.read();
        sources(&db, exchange.inner.hosts[exchange.host].host, &wanted)
    };
    let accepts = exchange.head.header("accept").unwrap_or_default();
    let as_json = exchange.head.query("json").is_some_and(|it| it != "false")
        || accepts.contains("json")
        || accepts.contains("*/*");
    let answer = if as_json { json(&wanted, &sources) } else { xml(&wanted, &sources) };
    exchange.answer(&answer).await
}

fn wanted(exchange: &Exchange, now: i64) -> Option<Wanted> {
    let head = &exchange.head;
    let start: i64 = head.query("start")?.parse().ok()?;
    let start = if start < 0 { now + start } else { start };
    let interval = head.query("interval").and_then(|it| it.parse().ok()).unwrap_or(0);
    let (step, kept) = ARCHIVES
        .into_iter()
        .find(|(step, kept)| *step >= interval && now - start <= *kept)
        .unwrap_or(ARCHIVES[ARCHIVES.len() - 1]);
    let end = now / step * step;
    let start = start.max(now - kept).min(end) / step * step;
    let consolidation = match head.query("cf") {
        Some(one) => vec![one.to_owned()],
        None => ["AVERAGE", "MIN", "MAX"].map(str::to_owned).to_vec(),
    };
    let with_host = head.query("host") == Some("true");
    Some(Wanted {
        start,
        end,
        step,
        consolidation,
        with_host,
        vm: head.query("vm_uuid").map(str::to_owned),
    })
}

fn sources(db: &Database, host: Ref, wanted: &Wanted) -> Vec<Source> {
    let mut sources = Vec::new();
    let Some(row) = db.find("host", host) else { return sources };
    let mut add = |class: &str, uuid: Uuid, name: &str, kind: &dyn Fn() -> Kind| {
        for function in &wanted.consolidation {
            let legend = format!("{function}:{class}:{uuid}:{name}");
            sources.push(Source { legend, kind: kind() });
        }
    };
    for vm in row.get("resident_VMs").ref_items().filter_map(|vm| db.find("VM", vm)) {
        let uuid = vm.uuid();
        if wanted.vm.as_ref().is_some_and(|it| *it != uuid.to_string()) {
            continue;
        }
        for cpu in 0..vm.int("VCPUs_at_startup") {
            add("vm", uuid, &format!("cpu{cpu}"), &|| Kind::Load(uuid));
        }
        let memory = bytes(vm, "memory_dynamic_max");
        add("vm", uuid, "memory", &|| Kind::Constant(memory));
        add("vm", uuid, "memory_internal_free", &|| Kind::Constant(memory / 2048.0));
        for vif in vm.get("VIFs").ref_items().filter_map(|vif| db.find("VIF", vif)) {
            for way in ["rx", "tx"] {
                add("vm", uuid, &format!("vif_{}_{way}", vif.text("device")), &|| {
                    Kind::Constant(0.0)
                });
            }
        }
        for vbd in vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd)) {
            for way in ["read", "write"] {
                add("vm", uuid, &format!("vbd_{}_{way}", vbd.text("device")), &|| {
                    Kind::Constant(0.0)
                });
            }
        }
    }
    if wanted.with_host && wanted.vm.is_none() {
        let uuid = row.uuid();
        let metrics = db.find("host_metrics", row.reference("metrics"));
        let kib = |field: &str| metrics.map_or(0.0, |metrics| bytes(metrics, field) / 1024.0);
        add("host", uuid, "cpu_avg", &|| Kind::Load(uuid));
        add("host", uuid, "loadavg", &|| Kind::Load(uuid));
        add("host", uuid, "memory_total_kib", &|| Kind::Constant(kib("memory_total")));
        add("host", uuid, "memory_free_kib", &|| Kind::Constant(kib("memory_free")));
    }
    sources
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
fn bytes(row: &Row, field: &str) -> f64 {
    row.int(field) as f64
}

/// The times of the rows, the newest first.
fn times(wanted: &Wanted) -> Vec<i64> {
    let count = (wanted.end - wanted.start) / wanted.step;
    (0..count).map(|number| wanted.end - number * wanted.step).collect()
}

fn json(wanted: &Wanted, sources: &[Source]) -> Answer {
    let times = times(wanted);
    let legend: Vec<&str> = sources.iter().map(|source| source.legend.as_str()).collect();
    let row = |time: &i64| {
        let values: Vec<f64> = sources.iter().map(|source| source.at(*time)).collect();
        serde_json::json!({ "t": time, "values": values })
    };
    let meta = serde_json::json!({
        "start": wanted.start, "step": wanted.step, "end": wanted.end,
        "rows": times.len(), "columns": sources.len(), "legend": legend,
    });
    let data: Vec<_> = times.iter().map(row).collect();
    Answer::json(200, "OK", &serde_json::json!({ "meta": meta, "data": data }))
}

fn xml(wanted: &Wanted, sources: &[Source]) -> Answer {
    let times = times(wanted);
    let entries: Vec<String> =
        sources.iter().map(|source| format!("<entry>{}</entry>", source.legend)).collect();
    let row = |time: &i64| {
        let values: Vec<String> =
            sources.iter().map(|source| format!("<v>{}</v>", source.at(*time))).collect();
        format!("<row><t>{time}</t>{}</row>", values.concat())
    };
    let rows: Vec<String> = times.iter().map(row).collect();
    let body = format!(
        "<?xml version=\"1.0\"?><xport><meta><start>{}</start><step>{}</step><end>{}</end><rows>{}</rows>\
         <columns>{}</columns><legend>{}</legend></meta><data>{}</data></xport>",
        wanted.start,
        wanted.step,
        wanted.end,
        times.len(),
        sources.len(),
        entries.concat(),
        rows.concat()
    );
    Answer::of("text/xml", body.into_bytes())
}
