//! Many VMs, each made from a template, used once and deleted, whose guests take 5 s to come up.
//!
//! The bound is what our own care for the pool imposes: so many starts, one after another by so long, the
//! guest's boot, and as many ends. On a small machine the guests take longer to boot than that, as they share its
//! processors; what this comes to is told by the shortest way ([`bare`](crate::bare)), which as many VMs go side
//! by side within the same bounds. The script has ten threads, each of which leads one VM after another
//! through its life. Ansible has one VM after another, nobody logs in, and its time is scaled to as many VMs.

use std::time::Duration;

use anyhow::Result;
use bench_report::{Report, Row, Samples, Target, Unit, timed};
use bioxen_xcp::Care;

use crate::Setting;
use crate::lab::{Lab, PASSWORD, TEMPLATE};
use crate::peers::run;

const BOOT: Duration = Duration::from_secs(5);

/// The script's threads.
const THREADS: u32 = 10;

/// How many VMs Ansible makes, which makes them one after another.
const BY_ANSIBLE: u32 = 10;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let count = setting.machines;
    let lab = Lab::with_guests(setting, &format!("{}s", BOOT.as_secs()))?;
    let mut ours = lab.controller()?;
    ours.ask("log-in")?;
    lab.proxy().take();
    let answer = ours.ask(&format!("lives {count}"))?;
    let seen = lab.proxy().take();
    report.note(format!("lives: the calls of ours for {count} VMs: {}", seen.list()));
    let parts = answer["parts"].to_string();
    report.note(format!("lives: seconds of ours to make, to run, to delete: {parts}"));
    let time = bench_report::conversation::seconds(&answer)?;
    let memory = ours.peak()?;
    let least = ours.time(&format!("bare-lives {count}"))?;
    drop(ours);
    lab.proxy().take();
    let what = format!("{count} VMs made, used and deleted, boot delay 5 s");
    let between = Care::default().between_power_operations;
    let bound = Samples::once((between * (2 * count) + BOOT).as_secs_f64());
    let row = Row::new(&what, Unit::Time, &time);
    for (other, bound) in [
        ("what the bounds impose", &bound),
        ("what the bounds and this machine's simulator impose", &least),
    ] {
        report.add(row.clone().against(other, bound).target(Target::RatioAtMost(1.5)));
    }
    let per_vm = |calls: u32| Samples::once((f64::from(calls) / f64::from(count)).ceil());
    let calls_what = format!("{count} VMs: calls of the pool for each, without waiting for events");
    let calls = Row::new(&calls_what, Unit::Count, &per_vm(seen.calls()));
    let calls = calls.target(Target::AtMost(25.0));
    if let Some(mut python) = lab.python(setting)? {
        let theirs = python.time(&format!("lives {count} {THREADS} 5 10"))?;
        let seen = lab.proxy().take();
        let name = format!("XenAPI and paramiko, {THREADS} threads");
        report.add(row.clone().against(&name, &theirs));
        report.add(calls.against(name, &per_vm(seen.calls())));
    } else {
        report.add(calls);
    }
    report.add(Row::new(
        format!("{count} VMs: most memory of the controller"),
        Unit::Size,
        &Samples::once(memory),
    ));
    by_ansible(setting, &lab, report, &row)
}

fn by_ansible(setting: &Setting, lab: &Lab, report: &mut Report, row: &Row) -> Result<()> {
    let Some(mut play) = setting.peers.ansible() else { return Ok(()) };
    let made = setting.effort.of(BY_ANSIBLE);
    let variables = [
        format!("url={}", lab.url()),
        format!("password={PASSWORD}"),
        format!("template='{TEMPLATE}'"),
        format!("count={made}"),
    ];
    play.args(variables.iter().flat_map(|variable| ["-e", variable]));
    let (played, seconds) = timed(|| run(&mut play));
    played?;
    let scale = f64::from(setting.machines) / f64::from(made);
    let name = format!("Ansible's xenserver_guest, scaled up from {made}");
    report.add(row.clone().against(name, &Samples::once(seconds * scale)));
    Ok(())
}
