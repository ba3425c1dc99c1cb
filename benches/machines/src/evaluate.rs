//! Evaluations in one VM, one after another.
//!
//! The echo is as many bytes as an evaluation has, there and back over a channel of the same connection by
//! `cat`. The others execute a command per call in the same guest, over a connection that is there. OpenSSH's
//! is the start of a process as well; paramiko's waits for delayed acknowledgements unless it is told not to
//! hold back small packets, which it is not by itself.

use anyhow::{Context as _, Result};
use bench_report::system::Placement;
use bench_report::{Report, Row, Samples, Target, Unit, timed};

use crate::Setting;
use crate::lab::Lab;
use crate::openssh::Master;

const ROUNDS: u32 = 30;
const SMALL: u32 = 500;
const EXECUTIONS: u32 = 20;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    for placement in Placement::ALL {
        let placed = placement.enter()?;
        measure_placed(setting, placement, report)?;
        drop(placed);
    }
    Ok(())
}

/// On one processor nobody waits for another to wake up, which one message at a time does most of all on some
/// machines.
fn measure_placed(setting: &Setting, placement: Placement, report: &mut Report) -> Result<()> {
    let lab = Lab::with_guests(setting, "0s")?;
    let mut ours = lab.controller()?;
    let mut python = lab.python(setting)?;
    let shared = ours.ask("share")?;
    let host = shared["host"].as_str().context("it has an address")?;
    let master = Master::start(&lab, host)?;
    let [mut evals, mut echoes, mut by_master, mut as_it_comes, mut nodelay] =
        [(); 5].map(|()| Samples::default());
    for round in 0..=setting.effort.of(ROUNDS) {
        let note = |samples: &mut Samples, more: Samples| {
            // The first round warms up.
            if round > 0 {
                samples.extend(more);
            }
        };
        note(&mut echoes, ours.time(&format!("echoes {SMALL}"))?);
        note(&mut evals, ours.time(&format!("evals {SMALL}"))?);
        for _ in 0..EXECUTIONS {
            let (ran, seconds) = timed(|| master.run("lua5.4 -e 'print(1 + 1)'"));
            ran?;
            note(&mut by_master, Samples::once(seconds));
        }
        if let Some(python) = &mut python {
            for (how, samples) in [("default", &mut as_it_comes), ("nodelay", &mut nodelay)] {
                note(samples, python.time(&format!("execs {host} {EXECUTIONS} {how}"))?);
            }
        }
    }
    let what = format!("evaluate in a VM, {}", placement.name());
    let row = Row::new(&what, Unit::Time, &evals);
    report.add(
        row.clone().against("echo over a bare channel", &echoes).target(Target::RatioAtMost(1.5)),
    );
    let others = [
        ("ssh with a ControlMaster, executing lua5.4", by_master),
        ("paramiko with TCP_NODELAY, the same", nodelay),
        ("paramiko as it comes, the same", as_it_comes),
    ];
    // The target is against the best of those.
    for (other, samples) in others {
        report.add(row.clone().against(other, &samples).target(Target::RatioAtMost(1.0 / 15.0)));
    }
    Ok(())
}
