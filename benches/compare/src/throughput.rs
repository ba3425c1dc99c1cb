//! Many evaluations: side by side for as long as it takes, and one in each of many VMs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bench_report::{Effort, Report, Row, Samples, Target, Unit};
use bioxen::{Group, Vm};

use crate::alternatives::{LUA, spawn, spawn_many};
use crate::ours::{Flavour, Ours, expect_value, numbered};

const CODE: &str = "return 1+1";

/// VMs that a broadcast goes to.
const AUDIENCE: u32 = 50;

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let both: [Ours; 2] = [Ours::new(Flavour::ALL[0], 0)?, Ours::new(Flavour::ALL[1], 0)?];
    let mut rates = [Samples::default(), Samples::default()];
    let mut spawned = Samples::default();
    let time = Duration::from_millis(if effort.quick { 100 } else { 500 });
    for (number, ours) in both.iter().enumerate() {
        ours.create(&format!("one_{number}"))?;
        ours.create(&format!("two_{number}"))?;
    }
    for _ in 0..effort.of(10) {
        for (samples, ours) in rates.iter_mut().zip(&both) {
            samples.push(ours.block_on(evaluate_in_all(ours.fleet.vms(), time))?);
        }
        spawned.push(spawns_a_second(time));
    }
    for (flavour, samples) in Flavour::ALL.iter().zip(&rates) {
        let what = format!("evaluations, two VMs busy, {}", flavour.name());
        let row =
            Row::new(what, Unit::Rate, samples).target(Target::AtLeast(20_000.0)).quoted("1540 /s");
        report.add(row.against(format!("{LUA} -e 'return 1+1', two at a time"), &spawned));
    }
    drop(both);
    broadcasts(effort, report)
}

/// Evaluates in all of the VMs at once, each as fast as it can, and returns evaluations a second.
async fn evaluate_in_all(vms: Vec<Vm>, time: Duration) -> Result<f64> {
    let clock = Instant::now();
    let busy: Vec<_> = vms.into_iter().map(|vm| tokio::spawn(evaluate_for(vm, time))).collect();
    let mut count = 0;
    for task in busy {
        count += task.await??;
    }
    Ok(f64::from(count) / clock.elapsed().as_secs_f64())
}

async fn evaluate_for(vm: Vm, time: Duration) -> Result<u32> {
    let until = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < until {
        expect_value(&vm.eval(CODE).await?, 2)?;
        count += 1;
    }
    Ok(count)
}

fn spawns_a_second(time: Duration) -> f64 {
    let clock = Instant::now();
    let count = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while clock.elapsed() < time && spawn(LUA, &["-e", CODE]).is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    f64::from(count.into_inner()) / clock.elapsed().as_secs_f64()
}

fn broadcasts(effort: Effort, report: &mut Report) -> Result<()> {
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    let (fleet, count) = (ours.fleet.clone(), usize::try_from(AUDIENCE)?);
    let group =
        ours.block_on(async move { Ok(fleet.create_group("all", count, numbered(0)).await?) })?;
    let (mut samples, mut spawned) = (Samples::default(), Samples::default());
    for _ in 0..effort.of(50) {
        samples.extend(ours.block_on(broadcast(group.clone()))?);
        spawned.extend(spawn_many(LUA, &["-e", CODE], AUDIENCE).into_iter().collect());
    }
    let row = Row::new("broadcast to 50 VMs", Unit::Time, &samples)
        .target(Target::AtMost(2e-3))
        .quoted("32 ms, 10 s");
    report.add(row.against(format!("50 × {LUA} -e 'return 1+1', side by side"), &spawned));
    Ok(())
}

async fn broadcast(group: Group) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..5 {
        let clock = Instant::now();
        let results = group.broadcast(CODE).wait().await;
        samples.push(clock.elapsed().as_secs_f64());
        for (_, run) in results {
            expect_value(&run?, 2)?;
        }
    }
    Ok(samples)
}
