//! VMs made and ready to evaluate.

use std::time::{Duration, Instant};

use anyhow::Result;
use bench_report::{Effort, Report, Row, Samples, Target, Unit};
use bioxen::{Fleet, Vm};

use crate::alternatives::{Helper, LUA, Partner, spawn, spawn_many};
use crate::ours::{Flavour, Ours, expect_value, numbered};

/// VMs that are made before the rate is taken.
const AT_ONCE: u32 = 100;

/// How long the makers of standby workers are left alone between two VMs.
const PACE: Duration = Duration::from_millis(10);

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    one_by_one(effort, report)?;
    rates(effort, report)?;
    from_standby(effort, report)
}

fn one_by_one(effort: Effort, report: &mut Report) -> Result<()> {
    let mut forks = Partner::start(Helper::Fork)?;
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    ours.create("warm")?;
    let mut created = Created::default();
    let (mut spawned, mut forked) = (Samples::default(), Samples::default());
    for _ in 0..effort.of(300) {
        created.extend(ours.block_on(create_one(ours.fleet.clone()))?);
        spawned.extend(spawn(LUA, &["-e", ""]).into_iter().collect());
        forked.push(forks.fork()?);
    }
    let row = Row::new("create a VM, forked", Unit::Time, &created.create);
    let target = Target::RatioAtMost(0.45);
    report.add(
        row.against(format!("{LUA} -e '', to its exit"), &spawned).target(target).quoted("110 ms"),
    );
    let row = Row::new("create a VM, forked", Unit::Time, &created.create);
    report.add(row.against("bare fork, exit and wait", &forked));
    let row = Row::new("create a VM, forked, and its first eval", Unit::Time, &created.with_eval);
    report.add(row.against(format!("{LUA} -e '', to its exit"), &spawned));
    let row = Row::new("remove a VM, until its process is gone", Unit::Time, &created.remove);
    report.add(row);
    Ok(())
}

#[derive(Default)]
struct Created {
    create: Samples,
    with_eval: Samples,
    remove: Samples,
}

impl Created {
    fn extend(&mut self, more: Self) {
        self.create.extend(more.create);
        self.with_eval.extend(more.with_eval);
        self.remove.extend(more.remove);
    }
}

async fn create_one(fleet: Fleet) -> Result<Created> {
    let spec = numbered(0);
    let clock = Instant::now();
    let vm = fleet.create(spec).await?;
    let create = clock.elapsed().as_secs_f64();
    let run = vm.eval("return 1+1").await?;
    let with_eval = clock.elapsed().as_secs_f64();
    expect_value(&run, 2)?;
    let clock = Instant::now();
    fleet.remove(vm.name().as_str()).await?;
    let remove = clock.elapsed().as_secs_f64();
    Ok(Created {
        create: Samples::once(create),
        with_eval: Samples::once(with_eval),
        remove: Samples::once(remove),
    })
}

fn rates(effort: Effort, report: &mut Report) -> Result<()> {
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    ours.create("warm")?;
    let (mut sequential, mut together) = (Samples::default(), Samples::default());
    let (mut spawned, mut spawned_together) = (Samples::default(), Samples::default());
    for _ in 0..effort.of(30) {
        sequential.push(ours.block_on(create_in_a_row(ours.fleet.clone()))?);
        let (seconds, vms) = ours.block_on(create_together(ours.fleet.clone()))?;
        together.push(seconds);
        drop(vms);
        let in_a_row: Option<f64> = (0..AT_ONCE / 10).map(|_| spawn(LUA, &["-e", ""])).sum();
        spawned.extend(in_a_row.map(|seconds| seconds * 10.0).into_iter().collect());
        spawned_together.extend(spawn_many(LUA, &["-e", ""], AT_ONCE).into_iter().collect());
    }
    let rate = |samples: &Samples| samples.rate_of(f64::from(AT_ONCE));
    let row = Row::new("VMs made one after another", Unit::Rate, &rate(&sequential));
    let other = format!("{LUA} -e '', one after another");
    report.add(row.against(other, &rate(&spawned)).target(Target::AtLeast(1500.0)));
    let row = Row::new("VMs made side by side", Unit::Rate, &rate(&together));
    let other = format!("{LUA} -e '', side by side");
    report.add(row.against(other, &rate(&spawned_together)).target(Target::AtLeast(1500.0)));
    Ok(())
}

async fn create_in_a_row(fleet: Fleet) -> Result<f64> {
    let clock = Instant::now();
    for number in 0..AT_ONCE {
        fleet.create(numbered(number)).await?;
    }
    let seconds = clock.elapsed().as_secs_f64();
    fleet.remove_matching("vm_*").await?;
    Ok(seconds)
}

async fn create_together(fleet: Fleet) -> Result<(f64, Vec<Vm>)> {
    let clock = Instant::now();
    let count = usize::try_from(AT_ONCE)?;
    let group = fleet.create_group("group", count, numbered(0)).await?;
    let seconds = clock.elapsed().as_secs_f64();
    let vms = group.members().to_vec();
    group.remove().await;
    Ok((seconds, vms))
}

fn from_standby(effort: Effort, report: &mut Report) -> Result<()> {
    let mut spawned = Samples::default();
    let mut created = [Samples::default(), Samples::default()];
    let mut first_eval = Samples::default();
    let ours = [Ours::new(Flavour::ALL[0], 4)?, Ours::new(Flavour::ALL[1], 4)?];
    for ours in &ours {
        ours.create("warm")?;
    }
    for _ in 0..effort.of(200) {
        for (samples, ours) in created.iter_mut().zip(&ours) {
            let one = ours.block_on(create_paced(ours.fleet.clone()))?;
            samples.extend(one.create);
            first_eval.extend(one.with_eval);
        }
        spawned.extend(spawn(LUA, &["-e", ""]).into_iter().collect());
    }
    for (flavour, samples) in Flavour::ALL.iter().zip(&created) {
        let what = format!("create a VM, from standby, {}", flavour.name());
        let row = Row::new(what, Unit::Time, samples).target(Target::AtMost(60e-6));
        report.add(row.against(format!("{LUA} -e '', to its exit"), &spawned));
    }
    let row = Row::new("create a VM, from standby, and its first eval", Unit::Time, &first_eval);
    report.add(row.against(format!("{LUA} -e '', to its exit"), &spawned));
    Ok(())
}

/// Makes a VM when workers stand by, which take a moment to be made again.
async fn create_paced(fleet: Fleet) -> Result<Created> {
    tokio::time::sleep(PACE).await;
    create_one(fleet).await
}
