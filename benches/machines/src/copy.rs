//! A large file that is copied into a guest, over a connection that is made for it.

use anyhow::{Context as _, Result};
use bench_report::{Report, Row, Samples, Target, Unit, timed};

use crate::Setting;
use crate::lab::Lab;
use crate::openssh::scp;

const SIZE: u32 = 200_000_000;
const ROUNDS: u32 = 10;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let lab = Lab::with_guests(setting, "0s")?;
    let mut ours = lab.controller()?;
    let shared = ours.ask("share")?;
    let host = shared["host"].as_str().context("it has an address")?;
    let file = lab.file(usize::try_from(SIZE)?)?;
    let (mut ours_rates, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..setting.effort.of(ROUNDS) {
        ours_rates.extend(ours.time(&format!("upload {}", file.display()))?.rate_of(SIZE.into()));
        let (copied, seconds) = timed(|| scp(&lab, host, &file, "theirs"));
        copied?;
        theirs.push(f64::from(SIZE) / seconds);
    }
    let row = Row::new("copy 200 MB into a VM", Unit::Throughput, &ours_rates);
    report.add(row.against("OpenSSH's scp", &theirs).target(Target::RatioAtLeast(0.8)));
    Ok(())
}
