//! The simulated pool by itself: how soon it is up, what it serves, what it takes.

use anyhow::Result;
use bench_report::{Report, Row, Samples, Target, Unit, timed};

use crate::Setting;
use crate::client::{Client, Kind};
use crate::simulator::Simulator;

const CLIENTS: u32 = 20;
const CALLS: u32 = 20_000;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let mut starts = Samples::default();
    for _ in 0..setting.effort.of(20) {
        let (simulator, seconds) = timed(|| Simulator::start(&[]));
        drop(simulator?);
        starts.push(seconds);
    }
    let what = "simulated pool: start of the process until it listens (TLS)";
    report.add(Row::new(what, Unit::Time, &starts).target(Target::AtMost(0.1)));
    let vms = setting.vms;
    let (simulator, seconds) = timed(|| Simulator::of(vms));
    let simulator = simulator?;
    let what = format!("simulated pool: start with {vms} VMs");
    report.add(Row::new(what, Unit::Time, &Samples::once(seconds)));
    let most = Target::AtMost(500e6);
    let what = format!("simulated pool: memory with {vms} VMs");
    let memory = Samples::once(simulator.resident()?);
    report.add(Row::new(what, Unit::Size, &memory).target(most));
    serve(setting, &simulator, report)?;
    let what =
        format!("simulated pool: most memory with {vms} VMs, after all was read and written");
    let memory = Samples::once(simulator.peak()?);
    report.add(Row::new(what, Unit::Size, &memory).target(most));
    Ok(())
}

fn serve(setting: &Setting, simulator: &Simulator, report: &mut Report) -> Result<()> {
    let Some(mut client) = Client::start(Kind::Ours, setting, simulator.url())? else {
        return Ok(());
    };
    let mut rates = Samples::default();
    for _ in 0..setting.effort.of(10) {
        let answer = client.ask(&format!("load {CLIENTS} {CALLS}"))?;
        rates.extend(answer.rates());
    }
    client.ask("records")?;
    let what = format!("simulated pool: calls of {CLIENTS} clients, {} VMs", setting.vms);
    report.add(Row::new(what, Unit::Rate, &rates).target(Target::AtLeast(10_000.0)));
    Ok(())
}
