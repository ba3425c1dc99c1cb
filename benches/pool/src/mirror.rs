//! A mirror of all VMs and what belongs to them: how long it takes to fill, and its memory.

use anyhow::Result;
use bench_report::{Report, Row, Samples, Target, Unit};
use xenapi::class::Class;

use crate::Setting;
use crate::client::{Client, Kind};
use crate::simulator::Simulator;

/// What is mirrored.
const CLASSES: [Class; 15] = [
    Class::Vm,
    Class::VmMetrics,
    Class::VmGuestMetrics,
    Class::Vbd,
    Class::Vdi,
    Class::Vif,
    Class::Sr,
    Class::Pbd,
    Class::Network,
    Class::Pif,
    Class::Host,
    Class::HostMetrics,
    Class::Pool,
    Class::Task,
    Class::Console,
];

const KINDS: [Kind; 2] = [Kind::Ours, Kind::Npm];

#[derive(Default)]
struct Measured {
    seconds: Samples,
    memory: Samples,
    peak: Samples,
}

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let simulator = Simulator::of(setting.vms)?;
    let classes = CLASSES.map(Class::name).join(" ");
    let mut measured: Vec<(Kind, Measured)> = KINDS.map(|kind| (kind, Measured::default())).into();
    for _ in 0..setting.effort.of(10) {
        for (kind, measured) in &mut measured {
            // Each in a fresh process, whose memory holds nothing else.
            let Some(mut client) = Client::start(*kind, setting, simulator.url())? else {
                continue;
            };
            let before = client.resident()?;
            measured.seconds.extend(client.ask(&format!("mirror 200 {classes}"))?.seconds());
            measured.memory.push(client.resident()? - before);
            measured.peak.push(client.peak()? - before);
        }
    }
    let [(_, ours), (npm, theirs)] = measured.as_slice() else { return Ok(()) };
    let target = Target::RatioAtMost(0.5);
    let what =
        |what: &str| format!("mirror of {} VMs with all that is theirs: {what}", setting.vms);
    let row = Row::new(what("time to fill"), Unit::Time, &ours.seconds);
    report.add(row.against(npm.name(), &theirs.seconds).target(target));
    let row = Row::new(what("memory"), Unit::Size, &ours.memory);
    report.add(row.against(npm.name(), &theirs.memory).target(target));
    let row = Row::new(what("memory at its most"), Unit::Size, &ours.peak);
    report.add(row.against(npm.name(), &theirs.peak));
    Ok(())
}
