//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while.
//!
//! The targets lie in `fuzz/`, a workspace of its own laid out for cargo-fuzz, which is not needed:
//! the flags that instrument the code are given here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum, value_parser};

use crate::program::{cargo, output_of, program, root, run};
use crate::steps::{self, Outcome, Steps};
use crate::tools;

/// Fuzzes what reads bytes from the other side of a connection
///
/// Needs a nightly toolchain and a C++ compiler. What is found stays in fuzz/corpus and, where it
/// breaks something, in fuzz/artifacts.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long to run each target
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run only this step (may be repeated); the targets are built in any case
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

#[derive(Clone, PartialEq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Step {
    /// The targets, and inputs to start from
    Build,
    /// What a worker says to its controller
    ReplyFrames,
    /// What a controller says to a worker
    RequestFrames,
    /// What a zygote says to its controller
    ZygoteAnswer,
    /// What a pool answers as JSON
    JsonRecord,
    /// What a pool answers as XML
    XmlAnswer,
    /// What a pool answers over HTTP
    PoolAnswers,
    /// What hosts tell of their metrics
    Metrics,
    /// The query of `get_all_records_where`
    WhereQuery,
    /// The disk of a guest's first boot
    SeedDisk,
    /// A configuration of the library that BioXen replaces
    OldConfiguration,
    /// What a guest says of its first boot
    CloudInitVerdict,
    /// What a guest says that calls home
    CallHome,
}

const TOOLCHAIN: &str = "+nightly";

/// Counters on every edge and the operands of comparisons, for libFuzzer to steer by; checks of
/// memory and overflow, for it to find.
const INSTRUMENTATION: &str = "\
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Zsanitizer=address \
    -Cdebug-assertions \
    -Coverflow-checks \
    -Ccodegen-units=1 \
    --cfg=fuzzing";

const QUIETLY: [&str; 4] =
    ["-verbosity=0", "-print_funcs=0", "-print_final_stats=1", "-timeout=10"];

/// How much of a broken target's output is shown.
const LAST_LINES: usize = 80;

impl Fuzz {
    pub(crate) fn run(mut self) -> Result<()> {
        if !self.only.is_empty() {
            self.only.push(Step::Build);
        }
        let mut targets = None;
        let mut steps = Steps::new("fuzz", self.only);
        steps.run(&Step::Build, "the fuzz targets build", || {
            targets = Some(Targets::build()?);
            Ok(Outcome::Passed)
        });
        if let Some(targets) = targets {
            let title = format!("no input breaks it in {} s", self.seconds);
            let all = [
                Step::ReplyFrames,
                Step::RequestFrames,
                Step::ZygoteAnswer,
                Step::JsonRecord,
                Step::XmlAnswer,
                Step::PoolAnswers,
                Step::Metrics,
                Step::WhereQuery,
                Step::SeedDisk,
                Step::OldConfiguration,
                Step::CloudInitVerdict,
                Step::CallHome,
            ];
            for target in all {
                steps.run(&target, &title, || targets.fuzz(&steps::name(&target), self.seconds));
            }
        }
        steps.finish()
    }
}

/// The targets, built, with a corpus to start from.
struct Targets {
    programs: PathBuf,
}

impl Targets {
    fn build() -> Result<Self> {
        if let Outcome::Skipped(reason) = tools::provide(tools::FOR_FUZZING)? {
            bail!("{reason}");
        }
        let host = host_of_nightly()?;
        // A named target keeps the instrumentation out of build scripts and procedural macros.
        let arguments = ["build", "--release", "--bins", "--manifest-path", "fuzz/Cargo.toml"];
        let mut build = nightly(&arguments);
        let target_dir = root().join("fuzz/target");
        build.args(["--target", &host]).env("RUSTFLAGS", INSTRUMENTATION);
        run(build.env("CARGO_TARGET_DIR", &target_dir))?;
        let programs = target_dir.join(host).join("release");
        run(&mut program(programs.join("seeds"), &["fuzz/corpus"]))?;
        Ok(Self { programs })
    }

    fn fuzz(&self, target: &str, seconds: u32) -> Result<Outcome> {
        let corpus = folder(format!("fuzz/corpus/{target}"))?;
        let artifacts = folder(format!("fuzz/artifacts/{target}"))?;
        let mut command = program(self.programs.join(target), &QUIETLY);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={artifacts}/"));
        // libFuzzer prints the stack itself.
        report(command.arg(corpus).env("RUST_BACKTRACE", "0"))
    }
}

/// Runs a target. libFuzzer says much that nobody reads: shown is only how far it got, or the end of
/// what it said where an input broke the target.
fn report(command: &mut Command) -> Result<Outcome> {
    let output = command.output().context("could not start the target")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        said.lines().filter(|line| line.starts_with("stat::")).for_each(|line| eprintln!("{line}"));
        return Ok(Outcome::Passed);
    }
    let lines: Vec<&str> = said.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
    bail!("an input broke the target; the target's program replays it when given its file");
}

fn folder(path: String) -> Result<String> {
    fs::create_dir_all(root().join(&path)).with_context(|| format!("could not create `{path}`"))?;
    Ok(path)
}

/// The platform that the nightly toolchain builds for.
fn host_of_nightly() -> Result<String> {
    let about = output_of(&mut program("rustc", &[TOOLCHAIN, "--version", "--verbose"])).context(
        "fuzzing needs the nightly toolchain: `rustup toolchain install nightly --profile minimal`",
    )?;
    String::from_utf8_lossy(&about)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("`rustc --version --verbose` names no host")
}

/// A cargo command of the nightly toolchain, without what this one's cargo has left behind.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = cargo(&[TOOLCHAIN]);
    command.args(arguments).env_remove("CARGO").env_remove("LD_LIBRARY_PATH");
    command
}
