//! How fast Lua itself runs, with all limits on: GC content of a bacterial genome.
//!
//! The loops are timed inside Lua by the processor time that they take, so that other processes do
//! not count; whole runs are timed from outside.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use bench_report::{Effort, Report, Row, Samples, Target, Unit, timed};
use bioxen::{Grants, Interpreter, Script, Vm};

use crate::alternatives::{LUA, exists};
use crate::ours::{Flavour, Ours, numbered};

const SCRIPT: &str = include_str!("gc.lua");
const LUAJIT: &str = "luajit";

/// The package with the genome of E. coli K-12 MG1655, and where it is in it.
const PACKAGE: &str = "ragout-examples";
const GENOME: &str = "usr/share/doc/ragout/examples/E.Coli/references/MG1655-K12.fasta.gz";
const GENOME_LENGTH: usize = 4_639_675;

/// The genome of phage lambda, which is here already, so many times.
const LAMBDA: &str = include_str!("../../../examples/data/lambda.fasta");
const LAMBDA_TIMES: usize = 96;

/// One way to run the script, and the samples of its two loops and of whole runs.
struct Contender {
    how: How,
    loops: [Samples; 2],
    whole: Samples,
}

enum How {
    Ours(Vm),
    Program(&'static str),
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("gc.lua");
    fs::write(&script, SCRIPT)?;
    let bases = directory.path().join("bases");
    let sequence = match genome(directory.path()) {
        Ok(sequence) => sequence,
        Err(error) => {
            report.note(format!(
                "lambda's genome {LAMBDA_TIMES} times in place of E. coli's: {error:#}"
            ));
            sequence_of(LAMBDA).repeat(LAMBDA_TIMES)
        }
    };
    fs::write(&bases, &sequence)?;
    let expected = sequence.bytes().filter(|base| matches!(base, b'G' | b'C')).count();
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    let jit = exists(LUAJIT);
    let mut contenders = vec![
        Contender::ours(&ours, "embedded", Interpreter::Embedded, &bases)?,
        Contender::of(How::Program(LUA)),
        Contender::ours(&ours, "debian", Interpreter::Program(LUA.into()), &bases)?,
    ];
    if jit {
        contenders.push(Contender::ours(
            &ours,
            "jit",
            Interpreter::Program(LUAJIT.into()),
            &bases,
        )?);
        contenders.push(Contender::of(How::Program(LUAJIT)));
    }
    for _ in 0..effort.of(30) {
        for contender in &mut contenders {
            contender.take_turn(&ours, &script, &bases, expected)?;
        }
    }
    tell(&contenders, u32::try_from(sequence.len())?, report);
    Ok(())
}

fn tell(contenders: &[Contender], length: u32, report: &mut Report) {
    let pairs = [
        ("built-in Lua", 0, 1, LUA, Some(Target::RatioAtLeast(0.95))),
        ("--lua lua5.4", 2, 1, LUA, Some(Target::RatioAtLeast(0.95))),
        ("--lua luajit", 3, 4, LUAJIT, Some(Target::RatioAtLeast(0.95))),
        ("--lua luajit", 3, 1, LUA, None),
    ];
    let rate = |samples: &Samples| samples.rate_of(f64::from(length));
    for (name, ours, other, other_name, target) in pairs {
        let (Some(ours), Some(other)) = (contenders.get(ours), contenders.get(other)) else {
            report.note(format!("{other_name} is not installed here"));
            return;
        };
        let mut tell = |what: &str, ours: &Samples, other: &Samples, target| {
            let what = format!("GC {what}, bases a second, {name}");
            let row = Row::new(what, Unit::Rate, &rate(ours)).against(other_name, &rate(other));
            report.add(match target {
                Some(target) => row.target(target).quoted("equals lua5.4"),
                None => row,
            });
        };
        tell("by bytes", &ours.loops[0], &other.loops[0], target);
        tell("by gsub", &ours.loops[1], &other.loops[1], target);
        tell("both, whole run", &ours.whole, &other.whole, None);
    }
}

impl Contender {
    fn of(how: How) -> Self {
        Self { how, loops: [Samples::default(), Samples::default()], whole: Samples::default() }
    }

    fn ours(ours: &Ours, name: &str, interpreter: Interpreter, bases: &Path) -> Result<Self> {
        let spec = numbered(0)
            .named(bioxen::VmName::new(name)?)
            .interpreter(interpreter)
            .grants(Grants::none().read(bases));
        let fleet = ours.fleet.clone();
        let vm = ours.block_on(async move { Ok(fleet.create(spec).await?) })?;
        Ok(Self::of(How::Ours(vm)))
    }

    fn take_turn(
        &mut self,
        ours: &Ours,
        script: &Path,
        bases: &Path,
        expected: usize,
    ) -> Result<()> {
        let (output, seconds) = match &self.how {
            How::Ours(vm) => {
                let script = Script::code("gc", SCRIPT).arg(bases.to_str().unwrap_or_default());
                let run = vm.run(script).into_future();
                let (run, seconds) = timed(|| ours.block_on(async move { Ok(run.await?) }));
                (run?.into_result()?.stdout, seconds)
            }
            How::Program(program) => {
                let (output, seconds) =
                    timed(|| Command::new(program).arg(script).arg(bases).output());
                (output?.stdout, seconds)
            }
        };
        let output = String::from_utf8(output)?;
        let mut lines = output.lines();
        for samples in &mut self.loops {
            let line = lines.next().context("the script printed too little")?;
            let (count, seconds) = line.split_once('\t').context("no count and time")?;
            if count.parse() != Ok(expected) {
                bail!("{count} bases were counted where {expected} are G or C");
            }
            samples.push(seconds.parse()?);
        }
        self.whole.push(seconds);
        Ok(())
    }
}

/// Fetches the genome of E. coli by its Debian package, without installing anything.
fn genome(directory: &Path) -> Result<String> {
    let run = |command: &mut Command| -> Result<Vec<u8>> {
        let output = command.current_dir(directory).output()?;
        if !output.status.success() {
            bail!("{} failed", command.get_program().display());
        }
        Ok(output.stdout)
    };
    let patience = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=0"];
    run(Command::new("apt-get").args(patience).args(["download", PACKAGE]))?;
    let archive = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| io::Error::other("no package came"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg("package"))?;
    let fasta = run(Command::new("gzip").arg("-dc").arg(Path::new("package").join(GENOME)))?;
    let sequence = sequence_of(&String::from_utf8(fasta)?);
    if sequence.len() != GENOME_LENGTH {
        bail!("the genome has {} bases and not {GENOME_LENGTH}", sequence.len());
    }
    Ok(sequence)
}

/// The bases of a FASTA file, in upper case.
fn sequence_of(fasta: &str) -> String {
    let lines = fasta.lines().filter(|line| !line.starts_with('>'));
    lines.map(|line| line.trim_end().to_ascii_uppercase()).collect()
}
