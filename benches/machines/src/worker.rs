//! The worker that is put into a guest, the first time and again: what goes over the wire.

use anyhow::{Context as _, Result, ensure};
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::lab::{Lab, ssh_port};
use crate::proxy::Proxy;

const ROUNDS: u32 = 10;

/// The key exchange, the login, the question for the digest, and Lua's order: no part of the worker.
const WITHOUT: f64 = 32.0 * 1024.0;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let lab = Lab::with_guests(setting, "0s")?;
    let mut ours = lab.controller()?;
    let shared = ours.ask("share")?;
    let host = shared["host"].as_str().context("it has an address")?;
    let proxy = Proxy::start(&format!("{host}:{}", ssh_port()))?;
    let enter = format!("enter {}", proxy.address());
    let mut bytes = [(); 2].map(|()| Samples::default());
    let mut times = [(); 2].map(|()| Samples::default());
    for _ in 0..setting.effort.of(ROUNDS) {
        ours.ask("forget-worker")?;
        for (index, expected) in ["Copied", "Present"].into_iter().enumerate() {
            proxy.take();
            let answer = ours.ask(&enter)?;
            ensure!(answer["placed"] == expected, "the worker was {}", answer["placed"]);
            let seen = proxy.take();
            bytes[index].push(f64::from(u32::try_from(seen.sent + seen.came)?));
            times[index].extend(bench_report::conversation::seconds(&answer)?);
        }
    }
    for (index, (which, most)) in
        [("the first time", f64::from(4 << 20)), ("again", WITHOUT)].into_iter().enumerate()
    {
        let what = format!("Lua started in a guest that is there, {which}: over the wire");
        report.add(Row::new(what, Unit::Size, &bytes[index]).target(Target::AtMost(most)));
        let what = format!("Lua started in a guest that is there, {which}");
        report.add(Row::new(what, Unit::Time, &times[index]));
    }
    Ok(())
}
