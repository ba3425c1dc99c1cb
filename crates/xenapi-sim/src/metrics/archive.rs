//! `GET /vm_rrd` and `GET /host_rrd`: all that is kept of one VM's or host's measurements, in the form of
//! a round-robin database.

use std::fmt::Write as _;
use std::io;

use super::{ARCHIVES, Source, Wanted, sources};
use crate::disk::transfer::{named, redirect, refuse};
use crate::error::{ApiError, bare};
use crate::http::{Answer, Exchange};
use crate::value::Ref;

const STEP: i64 = 5;
/// How long a source may stay silent.
const HEARTBEAT: &str = "300.0000";

/// One archive: what its rows are made of, and how far apart they are.
struct Archive {
    function: &'static str,
    step: i64,
    rows: i64,
}

fn archives() -> impl Iterator<Item = Archive> {
    ARCHIVES.into_iter().flat_map(|(step, kept)| {
        // What is measured is kept as it is, and needs no least and greatest.
        let functions: &[&str] =
            if step == STEP { &["AVERAGE"] } else { &["AVERAGE", "MIN", "MAX"] };
        functions.iter().map(move |function| Archive { function, step, rows: kept / step })
    })
}

/// Answers `GET /vm_rrd`.
pub(crate) async fn vm_rrd(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let found = {
        let (db, head) = (exchange.inner.read(), &exchange.head);
        let vm = named(&db, "VM", head.query("uuid").or_else(|| head.query("ref")));
        vm.map(|vm| {
            let vm = db.find("VM", vm.unwrap_or(Ref::NULL))?;
            let host = vm.reference("resident_on");
            let place = exchange.inner.hosts.iter().position(|place| place.host == host)?;
            Some((place, vm.uuid().to_string()))
        })
    };
    match found {
        Ok(Some((host, vm))) if host == exchange.host => answer(exchange, Some(vm)).await,
        Ok(Some((host, _))) => redirect(&mut exchange, host).await,
        Ok(None) => {
            let answer = Answer::html(404, "Not Found", "nothing is measured of this VM now");
            exchange.answer(&answer).await
        }
        Err(error) => refuse(&mut exchange, error).await,
    }
}

/// Answers `GET /host_rrd`.
pub(crate) async fn host_rrd(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() { Ok(()) } else { answer(exchange, None).await }
}

async fn answer(mut exchange: Exchange, vm: Option<String>) -> io::Result<()> {
    let now = exchange.inner.clock.now();
    let columns = match columns(&exchange, vm) {
        Ok(columns) => columns,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let accepts = exchange.head.header("accept").unwrap_or_default();
    let as_json =
        exchange.head.query("json").is_some_and(|it| it != "false") || accepts.contains("json");
    let answer = if as_json {
        Answer::json(200, "OK", &json(&columns, now))
    } else {
        Answer::of("text/xml", xml(&columns, now).into_bytes())
    };
    exchange.answer(&answer).await
}

/// What is measured, with its short names.
fn columns(exchange: &Exchange, vm: Option<String>) -> Result<Vec<(String, Source)>, ApiError> {
    let with_host = vm.is_none();
    let consolidation = vec!["AVERAGE".to_owned()];
    let wanted = Wanted { start: 0, end: 0, step: STEP, consolidation, with_host, vm };
    let host = exchange.inner.hosts.get(exchange.host).ok_or_else(|| bare("INTERNAL_ERROR"))?;
    let all = sources(&exchange.inner.read(), host.host, &wanted);
    let prefix = if with_host { "AVERAGE:host:" } else { "AVERAGE:vm:" };
    let own = all.into_iter().filter(|source| source.legend.starts_with(prefix));
    let short = |source: &Source| source.legend.rsplit(':').next().unwrap_or_default().to_owned();
    Ok(own.map(|source| (short(&source), source)).collect())
}

/// The times of an archive's rows, the oldest first.
fn times(archive: &Archive, now: i64) -> impl Iterator<Item = i64> {
    let (step, end) = (archive.step, now / archive.step * archive.step);
    (0..archive.rows).rev().map(move |row| end - row * step)
}

fn json(columns: &[(String, Source)], now: i64) -> serde_json::Value {
    let sources: Vec<_> = (columns.iter())
        .map(|(name, source)| {
            serde_json::json!({
                "name": name, "type": "GAUGE", "minimal_heartbeat": HEARTBEAT, "min": "0.0",
                "max": "Infinity", "last_ds": source.at(now).to_string(), "value": "0.0",
                "unknown_sec": "0",
            })
        })
        .collect();
    let archives: Vec<_> = archives()
        .map(|archive| {
            let rows: Vec<Vec<f64>> = times(&archive, now)
                .map(|time| columns.iter().map(|(_, source)| source.at(time)).collect())
                .collect();
            serde_json::json!({
                "cf": archive.function, "pdp_per_row": archive.step / STEP, "xff": "0.5000",
                "cdp_prep": [], "database": rows,
            })
        })
        .collect();
    serde_json::json!({
        "version": "0003", "step": STEP, "lastupdate": now.to_string(), "ds": sources, "rra": archives,
    })
}

fn xml(columns: &[(String, Source)], now: i64) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\"?><rrd><version>0003</version><step>{STEP}</step><lastupdate>{now}</lastupdate>"
    );
    // Writing to a `String` cannot fail.
    for (name, source) in columns {
        let _ = write!(
            xml,
            "<ds><name>{name}</name><type>GAUGE</type><minimal_heartbeat>{HEARTBEAT}</minimal_heartbeat>\
             <min>0.0</min><max>Infinity</max><last_ds>{}</last_ds><value>0.0</value>\
             <unknown_sec>0</unknown_sec></ds>",
            source.at(now)
        );
    }
    for archive in archives() {
        let _ = write!(
            xml,
            "<rra><cf>{}</cf><pdp_per_row>{}</pdp_per_row><params><xff>0.5000</xff></params><cdp_prep>",
            archive.function,
            archive.step / STEP
        );
        for _ in columns {
            xml.push_str(
                "<ds><primary_value>0.0</primary_value><secondary_value>0.0</secondary_value>\
                 <value>0.0</value><unknown_datapoints>0</unknown_datapoints></ds>",
            );
        }
        xml.push_str("</cdp_prep><database>");
        for time in times(&archive, now) {
            xml.push_str("<row>");
            for (_, source) in columns {
                let _ = write!(xml, "<v>{}</v>", source.at(time));
            }
            xml.push_str("</row>");
        }
        xml.push_str("</database></rra>");
    }
    xml + "</rrd>"
}
