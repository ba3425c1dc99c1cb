//! All records of all VMs: read into types, and fetched from one end to the other.

use anyhow::{Context as _, Result};
use bench_report::{Report, Row, Samples, Target, Unit, timed};
use xenapi::wire::{Protocol, decode};
use xenapi::{Map, Ref, class, vm};

use crate::Setting;
use crate::client::{Client, Kind};
use crate::plain;
use crate::raw::Raw;
use crate::simulator::Simulator;

type Records = Map<Ref<class::Vm>, vm::Record>;

const METHOD: &str = "VM.get_all_records";

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let simulator = Simulator::of(setting.vms)?;
    let raw = Raw::log_in(&simulator)?;
    let lean = raw.call(METHOD)?;
    pad(setting, &simulator, lean.len())?;
    let body = raw.call(METHOD)?;
    report.note(format!(
        "the answer to {METHOD} of {} VMs has {:.1} MB; {:.1} MB before `other_config` was filled up",
        setting.vms,
        megabytes(&body)?,
        megabytes(&lean)?,
    ));
    decoding(setting, &body, report)?;
    end_to_end(setting, &simulator, report)?;
    memory(setting, &simulator, &body, report)
}

/// Lets VMs have what they have in pools that are in use, where a record has about 4 kB.
fn pad(setting: &Setting, simulator: &Simulator, length: usize) -> Result<()> {
    let missing = 4000_usize.saturating_sub(length / usize::try_from(setting.vms)?);
    let mut client =
        Client::start(Kind::Ours, setting, simulator.url())?.context("it is built in")?;
    client.ask(&format!("pad {missing}")).map(drop)
}

fn megabytes(body: &[u8]) -> Result<f64> {
    Ok(f64::from(u32::try_from(body.len())?) / 1e6)
}

/// Reading the same bytes, ours and serde's derive in turns.
fn decoding(setting: &Setting, body: &[u8], report: &mut Report) -> Result<()> {
    let (mut ours, mut derived) = (Samples::default(), Samples::default());
    for _ in 0..setting.effort.of(20) {
        let copy = body.to_vec();
        let (records, seconds) = timed(|| decode::<Records>(Protocol::JsonRpc2, copy));
        ours.push(seconds);
        drop(records?.context("the server failed")?);
        let copy = body.to_vec();
        let (records, seconds) = timed(|| serde_json::from_slice::<plain::Answer>(&copy));
        derived.push(seconds);
        drop(records?);
    }
    let row = Row::new(format!("decode {METHOD}"), Unit::Time, &ours);
    let row = row.against("serde_json into the same fields of std types", &derived);
    report.add(row.target(Target::RatioAtMost(1.3)));
    Ok(())
}

/// From the call to the records in memory, with the pool's own work and the way in between.
fn end_to_end(setting: &Setting, simulator: &Simulator, report: &mut Report) -> Result<()> {
    let kinds = [Kind::Ours, Kind::Python, Kind::Npm];
    let mut clients = Client::start_all(&kinds, setting, simulator.url())?;
    let mut samples = vec![Samples::default(); clients.len()];
    for _ in 0..setting.effort.of(10) {
        for ((_, client), samples) in clients.iter_mut().zip(&mut samples) {
            samples.extend(client.ask("records")?.seconds());
        }
    }
    let Some((ours, others)) = samples.split_first() else { return Ok(()) };
    for ((kind, _), others) in clients.iter().skip(1).zip(others) {
        let what = format!("{METHOD}, from the call to {}", "typed records");
        let decoded = match kind {
            Kind::Python => "dicts of text, from XML",
            Kind::Npm => "plain objects, from JSON",
            Kind::Ours | Kind::OursSmall => "typed records",
        };
        let row =
            Row::new(what, Unit::Time, ours).against(format!("{}: {decoded}", kind.name()), others);
        report.add(match kind {
            Kind::Python => row.target(Target::RatioAtMost(0.1)),
            Kind::Ours | Kind::OursSmall | Kind::Npm => row,
        });
    }
    Ok(())
}

/// What reading all records takes beyond what the process had, at its most.
fn memory(
    setting: &Setting,
    simulator: &Simulator,
    body: &[u8],
    report: &mut Report,
) -> Result<()> {
    let size = Samples::once(f64::from(u32::try_from(body.len())?));
    for kind in [Kind::Ours, Kind::Python, Kind::Npm] {
        let mut peaks = Samples::default();
        for _ in 0..3 {
            let Some(mut client) = Client::start(kind, setting, simulator.url())? else { break };
            let before = client.resident()?;
            client.ask("records")?;
            peaks.push(client.peak()? - before);
        }
        let what = format!("{METHOD}: peak memory of {}", kind.name());
        let row = Row::new(what, Unit::Size, &peaks).against("the body", &size);
        report.add(match kind {
            Kind::Ours => row.target(Target::RatioAtMost(2.0)),
            Kind::OursSmall | Kind::Python | Kind::Npm => row,
        });
    }
    Ok(())
}
