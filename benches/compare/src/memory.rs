//! What idle VMs cost: memory, and anything at all when there are 10,000.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use bench_report::{Effort, Report, Row, Samples, Target, Unit, system, timed};
use bioxen::{Group, Vm, VmState};

use crate::alternatives::LUA;
use crate::ours::{Flavour, Ours, expect_value, numbered};

/// Processes over which the mean is taken.
const SEVERAL: u32 = 100;

/// How long processes are given to become idle.
const SETTLE: Duration = Duration::from_millis(500);

/// The most that an idle VM is to cost.
const TARGET: Target = Target::AtMost(128.0 * 1024.0);

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let lua = Samples::once(of_interpreters()?);
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    let group = create(&ours, SEVERAL)?;
    std::thread::sleep(SETTLE);
    let workers = processes(group.members());
    let zygote = workers.first().and_then(|worker| system::parent(*worker));
    if workers.iter().all(|worker| system::proportional_set_size(*worker).is_none()) {
        report.note("the memory of VMs was not measured: only root may look at it");
        return Ok(());
    }
    let other = format!("{LUA} waiting on a pipe, of {SEVERAL}");
    let mut tell = |what: &str, processes: &[u32]| {
        let size = Samples::once(mean(processes));
        let row = Row::new(format!("PSS of an idle VM, of {SEVERAL}, {what}"), Unit::Size, &size);
        report.add(row.against(&other, &lua).target(TARGET).quoted("484 KiB"));
    };
    tell("new", &workers);
    evaluate_once(&ours, &group)?;
    std::thread::sleep(SETTLE);
    tell("after one eval", &workers);
    let with_zygote: Vec<u32> = workers.iter().copied().chain(zygote).collect();
    tell("after one eval, with its part of the zygote", &with_zygote);
    Ok(())
}

fn create(ours: &Ours, count: u32) -> Result<Group> {
    let (fleet, count) = (ours.fleet.clone(), usize::try_from(count)?);
    ours.block_on(async move { Ok(fleet.create_group("idle", count, numbered(0)).await?) })
}

fn evaluate_once(ours: &Ours, group: &Group) -> Result<()> {
    let broadcast = group.clone();
    let results =
        ours.block_on(async move { Ok(broadcast.broadcast("return 1+1").wait().await) })?;
    results.into_iter().try_for_each(|(_, run)| expect_value(&run?, 2))
}

fn processes(vms: &[Vm]) -> Vec<u32> {
    let process = |vm: &Vm| match vm.status() {
        VmState::Running { process, .. } => process,
        _ => None,
    };
    vms.iter().filter_map(process).collect()
}

/// The sum over all of these processes, divided by the number of VMs.
fn mean(processes: &[u32]) -> f64 {
    let sum: f64 = processes.iter().filter_map(|p| system::proportional_set_size(*p)).sum();
    sum / f64::from(SEVERAL)
}

/// The mean over interpreters that wait for input that does not come.
fn of_interpreters() -> Result<f64> {
    let waiting = || Command::new(LUA).args(["-e", "io.read()"]).stdin(Stdio::piped()).spawn();
    let mut children: Vec<Child> = (0..SEVERAL).map(|_| waiting()).collect::<Result<_, _>>()?;
    std::thread::sleep(SETTLE);
    let mean = mean(&children.iter().map(Child::id).collect::<Vec<_>>());
    for child in &mut children {
        // Closes its standard input, which it waits for.
        child.wait()?;
    }
    Ok(mean)
}

/// Makes 10,000 VMs, looks at what they cost while idle, and ends them.
///
/// Not run by default: it takes a third of the processes that a machine usually allows.
pub(crate) fn measure_many(effort: Effort, report: &mut Report) -> Result<()> {
    let wanted = effort.of(10_000);
    let (files, processes) = (system::raise_open_files()?, system::most_processes());
    if files < u64::from(wanted) + 200 || processes < wanted + 500 {
        let why = format!("{files} open files and {processes} processes are allowed here");
        report.note(format!("{wanted} VMs at once were not tried: {why}"));
        return Ok(());
    }
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    ours.create("warm")?;
    let (files_before, resident_before) = (system::open_files(), system::resident());
    let (group, seconds) = timed(|| create(&ours, wanted));
    let group = group?;
    let name = format!("{wanted} idle VMs");
    let mut tell = |what: &str, unit, value: f64, target: Option<Target>| {
        let row = Row::new(format!("{name}: {what}"), unit, &Samples::once(value));
        report.add(match target {
            Some(target) => row.target(target),
            None => row,
        });
    };
    tell("made in", Unit::Time, seconds, None);
    std::thread::sleep(SETTLE);
    let workers = self::processes(group.members());
    let sample: Vec<f64> =
        workers.iter().step_by(20).filter_map(|p| system::proportional_set_size(*p)).collect();
    let count = u32::try_from(sample.len().max(1))?;
    tell(
        "mean PSS of one",
        Unit::Size,
        sample.iter().sum::<f64>() / f64::from(count),
        Some(TARGET),
    );
    let controller = (system::resident() - resident_before) / f64::from(wanted);
    tell("the controller's memory for one", Unit::Size, controller, None);
    let threads = f64::from(u32::try_from(system::threads())?);
    tell("threads of the controller", Unit::Count, threads, Some(Target::AtMost(10.0)));
    let idle = Duration::from_secs(2);
    let before = cpu_time(&workers);
    // Reading 10,000 files takes this process longer than all else that it does meanwhile, so that
    // its own time is read inside of that.
    let own_before = system::own_cpu_time();
    std::thread::sleep(idle);
    let own = system::own_cpu_time().saturating_sub(own_before);
    let used = (cpu_time(&workers).saturating_sub(before) + own).as_secs_f64();
    tell("processor time of all in 2 s", Unit::Time, used, Some(Target::AtMost(0.02)));
    let (outcome, seconds) = timed(|| evaluate_once(&ours, &group));
    outcome?;
    tell("an eval in each, broadcast", Unit::Time, seconds, None);
    let clock = Instant::now();
    drop(group);
    drop(ours);
    tell("dropped in", Unit::Time, clock.elapsed().as_secs_f64(), None);
    let left = || workers.iter().filter(|worker| system::is_there(**worker)).count();
    system::wait_until(Duration::from_secs(5), || left() == 0);
    let left = f64::from(u32::try_from(left())?);
    tell("processes left", Unit::Count, left, Some(Target::AtMost(0.0)));
    let files = system::open_files().saturating_sub(files_before);
    let files = f64::from(u32::try_from(files)?);
    tell("open files left", Unit::Count, files, Some(Target::AtMost(0.0)));
    Ok(())
}

fn cpu_time(workers: &[u32]) -> Duration {
    workers.iter().map(|worker| system::cpu_time(*worker)).sum()
}
