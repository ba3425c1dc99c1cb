//! Many VMs that evaluate at once.
//!
//! So many guests are more than a small machine carries, so that all VMs live in one guest: each has a
//! connection of its own to it, a worker of its own, and its own place in the fleet.

use anyhow::{Context as _, Result};
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::lab::Lab;

const VMS: u32 = 200;
const ROUNDS: u32 = 10;
const EACH: u32 = 100;

/// How often each thread of the script executes something in a round.
const EACH_OF_THREADS: u32 = 3;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let lab = Lab::with_guests(setting, "0s")?;
    let mut ours = lab.controller()?;
    let mut python = lab.python(setting)?;
    let shared = ours.ask("share")?;
    let host = shared["host"].as_str().context("it has an address")?;
    let gathered = ours.time(&format!("gather {VMS}"))?;
    let (mut rates, mut theirs) = (Samples::default(), Samples::default());
    let mut memory = Samples::default();
    for round in 0..=setting.effort.of(ROUNDS) {
        let time = ours.time(&format!("crowd {EACH}"))?;
        // The first round warms up.
        if round == 0 {
            continue;
        }
        rates.extend(time.rate_of(f64::from(VMS * EACH)));
        if let Some(python) = &mut python {
            let answer = python.ask(&format!("crowd {host} {VMS} {EACH_OF_THREADS} nodelay"))?;
            let time = bench_report::conversation::seconds(&answer)?;
            theirs.extend(time.rate_of(f64::from(VMS * EACH_OF_THREADS)));
            memory.push(answer["memory"].as_f64().context("it tells its memory")?);
        }
    }
    let name = "paramiko with TCP_NODELAY and as many threads";
    let what = format!("{VMS} VMs evaluate at once");
    let row = Row::new(&what, Unit::Rate, &rates).against(name, &theirs);
    report.add(row.target(Target::RatioAtLeast(20.0)));
    let what = format!("{VMS} VMs evaluate at once: most memory of the controller");
    let row = Row::new(what, Unit::Size, &Samples::once(ours.peak()?)).against(name, &memory);
    report.add(row.target(Target::AtMost(150e6)));
    let what = format!("{VMS} VMs: connected, with Lua in each");
    report.add(Row::new(what, Unit::Time, &gathered));
    report.note(format!("crowd: all {VMS} VMs live in one guest"));
    Ok(())
}
