//! `bioxen demo`: several VMs at work at once on a real genome, and what holds each of them in.

mod lab;
mod parts;
mod progress;

use std::io::Write as _;
use std::process::ExitCode;

use bioxen::{Fleet, Isolation, Mechanism, Run, Script, VmSpec};
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::json::{self, RunObject};
use crate::output::Output;
use crate::report::Report;
use crate::signals::Signals;
use crate::table::{self, quantity, text};
use crate::{fleet, runtime, shown};
use lab::Lab;
use parts::{PARTS, Part};
use progress::Progress;

const GENOME: &[u8] = include_bytes!("../../assets/lambda.fasta");

/// See several VMs at work on a real genome
///
/// Ten VMs start at once: eight as processes of this machine, two as virtual machines of a pool that is
/// simulated for as long. Six analyse the genome of phage lambda (48 502 bases); one needs more memory than
/// it may, one never ends, one reads a file that it was not granted, one starts a program. Shows where each
/// lived and how it ended, what holds them in, and what is left. Needs nothing but this program, and leaves
/// nothing behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print the runs' records and what they wrote as a JSON array
    #[arg(long)]
    json: bool,
}

/// Runs all parts; succeeds if each ended as it should.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let lab = Lab::start().await?;
        let before = lab.count().await?;
        let fleet = Fleet::builder().standby(0).backend(lab.backend()).build();
        let runs = signals.or_stop(run_all(&fleet)).await;
        fleet::shut_down(&fleet).await;
        let (runs, after) = (runs?, lab.count().await?);
        let rendered = if arguments.json {
            objects(&runs)
        } else {
            (summary(&runs) + &leftovers(before, after)).into_bytes()
        };
        Output::new().write(bioxen::Stream::Stdout, &rendered).await?;
        if before != after {
            let message = "something of the demonstration is left on the simulated pool";
            Report::new(message).error();
            return Ok(ExitCode::FAILURE);
        }
        Ok(verdict(&runs))
    })
}

/// Runs all parts at once; the runs come back in the order of [`PARTS`].
async fn run_all(fleet: &Fleet) -> Result<Vec<Run>, Failure> {
    // Only this user can read it, and it is gone when this function ends, however it ends.
    let genome = genome_file().map_err(Failure::DemoData)?;
    let mut progress = Progress::new(PARTS.iter().map(|part| part.name));
    let mut events = fleet.events();
    let mut tasks = JoinSet::new();
    for (index, part) in PARTS.iter().enumerate() {
        let (fleet, spec, script) =
            (fleet.clone(), part.spec(genome.path()), part.script(genome.path()));
        tasks.spawn(async move { (index, run(fleet, spec, script).await) });
    }
    let mut runs: Vec<Option<Run>> = PARTS.iter().map(|_| None).collect();
    loop {
        tokio::select! {
            Some(event) = events.next() => progress.show(&event),
            ended = tasks.join_next() => match ended {
                Some(ended) => {
                    let (index, run) = ended.expect("a part neither panics nor is aborted");
                    runs[index] = Some(run?);
                }
                None => break,
            },
        }
    }
    Ok(runs.into_iter().flatten().collect())
}

fn genome_file() -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("bioxen-demo-").suffix(".fasta").tempfile()?;
    file.write_all(GENOME)?;
    Ok(file)
}

async fn run(fleet: Fleet, spec: VmSpec, script: Script) -> Result<Run, Failure> {
    let vm = fleet::create(&fleet, spec).await?;
    vm.run(script).fresh().await.map_err(Failure::Evaluate)
}

/// The runs for a program.
fn objects(runs: &[Run]) -> Vec<u8> {
    /// A run's object, with what its VM was to do.
    #[derive(Serialize)]
    struct Object<'a> {
        task: &'static str,
        #[serde(flatten)]
        run: RunObject<'a>,
    }
    let objects = PARTS.iter().zip(runs);
    let objects = objects.map(|(part, run)| Object { task: part.task, run: RunObject::new(run) });
    json::render(&objects.collect::<Vec<_>>())
}

/// The runs for a person.
fn summary(runs: &[Run]) -> String {
    let columns = [
        text("VM"),
        text("WHERE"),
        text("WHAT IT DOES"),
        text("ENDED BY"),
        quantity("EXIT"),
        quantity("TIME"),
        quantity("CPU"),
        quantity("MEMORY"),
    ];
    let rows = PARTS.iter().zip(runs).map(|(part, run)| row(part, run)).collect();
    let results = PARTS.iter().zip(runs);
    let results = results.map(|(part, run)| [part.name.into(), part.result(run)]).collect();
    format!(
        "{}\n{}\n{}",
        table::render(columns, rows),
        table::render([text("VM"), text("WHAT CAME OF IT")], results),
        runs.first().map(|run| held_in_by(&run.record.context.isolation)).unwrap_or_default(),
    )
}

fn row(part: &Part, run: &Run) -> [String; 8] {
    let record = &run.record;
    [
        part.name.into(),
        place(run),
        part.task.into(),
        record.ending.ended_by.to_string(),
        record.ending.exit_code.to_string(),
        shown::duration(record.duration),
        shown::or_dash(record.cpu_time, shown::duration),
        shown::or_dash(record.peak_memory, shown::size),
    ]
}

/// Where it lived.
fn place(run: &Run) -> String {
    match &run.record.context.machine {
        None => "a process here".into(),
        Some(machine) => {
            let host = machine.host.as_deref().unwrap_or("?");
            format!("a machine on {host}")
        }
    }
}

/// What is left on the pool, and what to do next.
fn leftovers(before: (usize, usize), after: (usize, usize)) -> String {
    let kept = if before == after { "as before" } else { "and not as before" };
    let (vms, disks) = after;
    format!(
        "The simulated pool has {vms} VMs and {disks} disks, {kept}: its machines are gone again.\n\
         Next: `bioxen repl` to talk to a VM, `bioxen run --help` to run your own script,\n\
         `bioxen sim start` for a simulated pool of your own.\n"
    )
}

fn held_in_by(isolation: &Isolation) -> String {
    let (active, all) = (isolation.active.len(), Mechanism::ALL.len());
    format!("Each VM was held in by {active} of {all} mechanisms: `bioxen doctor` names them.\n")
}

/// Says which parts did not end as they should.
fn verdict(runs: &[Run]) -> ExitCode {
    let mut verdict = ExitCode::SUCCESS;
    for (part, run) in PARTS.iter().zip(runs) {
        let ended_by = run.record.ending.ended_by;
        if ended_by != part.ends_by {
            let message =
                format!("vm `{}` ended by {ended_by}, not by {}", part.name, part.ends_by);
            Report { hint: Some("run `bioxen doctor`".into()), ..Report::new(message) }.error();
            verdict = ExitCode::FAILURE;
        }
    }
    verdict
}
