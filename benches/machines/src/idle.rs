//! What it costs a pool that its VMs are watched, while nothing happens.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::lab::Lab;

const VMS: u32 = 1000;

/// How often the script asks for the state of each VM, in seconds.
const EVERY: u32 = 2;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let time = setting.effort.of(20);
    let lab = Lab::start(setting, &["--vms", &VMS.to_string()])?;
    let mut ours = lab.controller()?;
    ours.ask("log-in")?;
    ensure!(lab.proxy().take().calls() > 0, "the proxy counts no calls");
    sleep(Duration::from_secs(u64::from(time)));
    let calls = Samples::once(f64::from(lab.proxy().take().calls()));
    drop(ours);
    let what = format!("{VMS} idle VMs watched for {time} s: calls beside waiting for events");
    let mut row = Row::new(what, Unit::Count, &calls).target(Target::AtMost(0.0));
    if let Some(mut python) = lab.python(setting)? {
        let answer = python.ask(&format!("watch {time} {EVERY}"))?;
        let theirs = Samples::once(answer["count"].as_f64().unwrap_or_default());
        row = row.against(format!("asking for each state every {EVERY} s"), &theirs);
    }
    report.add(row);
    Ok(())
}
