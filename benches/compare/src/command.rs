//! The command `bioxen` as a whole, from its start to its exit.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, iter};

use anyhow::{Context as _, Result, bail};
use bench_report::{Effort, Report, Row, Samples, Target, Unit, system};

use crate::alternatives::{LUA, spawn};

/// The command beside this program, where `cargo build --release` puts both.
fn bioxen(report: &mut Report) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("bioxen");
    if !path.is_file() {
        report.note("`bioxen` is not beside this program: build it with `cargo build --release`");
        return None;
    }
    Some(path)
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let Some(bioxen) = bioxen(report) else { return Ok(()) };
    let bioxen = bioxen.to_str().context("this program's path is not UTF-8")?;
    let (mut ours, mut version, mut lua) = Default::default();
    let push = |samples: &mut Samples, seconds: Option<f64>| {
        samples.extend(seconds.into_iter().collect());
    };
    for _ in 0..effort.of(200) {
        push(&mut ours, spawn(bioxen, &["eval", "1"]));
        push(&mut version, spawn(bioxen, &["--version"]));
        push(&mut lua, spawn(LUA, &["-e", "print(1)"]));
    }
    let row = Row::new("`bioxen eval 1`, whole process", Unit::Time, &ours);
    let row = row.against(format!("{LUA} -e 'print(1)'"), &lua);
    report.add(row.target(Target::AtMost(8e-3)).quoted("43 ms for the import alone"));
    let row = Row::new("`bioxen --version`, whole process", Unit::Time, &version);
    report.add(row.against(format!("{LUA} -e 'print(1)'"), &lua));
    Ok(())
}

/// A script that writes so many pieces of a size, both its arguments.
const WRITER: &str = "local size, count = ...
local piece = ('x'):rep(tonumber(size) - 1) .. '\\n'
for _ = 1, tonumber(count) do io.write(piece) end
";

/// Sizes of pieces that are written, and what they are called.
const PIECES: [(u32, &str); 2] = [(1_000_000, "pieces of 1 MB"), (100, "lines of 100 bytes")];

/// What streaming took.
#[derive(Default)]
struct Streamed {
    seconds: Samples,
    controller: Samples,
    worker: Samples,
}

pub(crate) fn measure_stream(effort: Effort, report: &mut Report) -> Result<()> {
    let Some(bioxen) = bioxen(report) else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("writer.lua");
    fs::write(&script, WRITER)?;
    let total = if effort.quick { 100_000_000 } else { 1_000_000_000_u32 };
    for (size, name) in PIECES {
        let command = |total: u32| -> (Command, Command) {
            let arguments = [size.to_string(), (total / size).to_string()];
            let (mut ours, mut lua) = (Command::new(&bioxen), Command::new(LUA));
            ours.args(["run", "--max-output", "unlimited"]).arg(&script).args(&arguments);
            lua.arg(&script).args(&arguments);
            (ours, lua)
        };
        let (mut ours, mut lua, mut tenth) = <(Streamed, Streamed, Streamed)>::default();
        for _ in 0..effort.of(5) {
            let (mut our_command, mut lua_command) = command(total);
            ours.take(&mut our_command)?;
            lua.take(&mut lua_command)?;
            tenth.take(&mut command(total / 10).0)?;
        }
        tell(name, total, &ours, &lua, &tenth, report);
    }
    Ok(())
}

fn tell(
    name: &str,
    total: u32,
    ours: &Streamed,
    lua: &Streamed,
    tenth: &Streamed,
    report: &mut Report,
) {
    let rate = |streamed: &Streamed| streamed.seconds.rate_of(f64::from(total));
    let what = format!("{} MB of stdout streamed in {name}", total / 1_000_000);
    let row = Row::new(&what, Unit::Throughput, &rate(ours));
    let row = row.against(format!("{LUA} into cat"), &rate(lua));
    report.add(row.target(Target::RatioAtLeast(0.5)).quoted("all held in memory"));
    let parts = [
        ("controller", &ours.controller, &tenth.controller),
        ("worker", &ours.worker, &tenth.worker),
    ];
    for (part, whole, tenth) in parts {
        let row = Row::new(format!("peak memory of the {part}, {name}"), Unit::Size, whole);
        let row = row.against("the same for a tenth of it", tenth);
        report.add(row.target(Target::RatioAtMost(1.2)));
    }
}

impl Streamed {
    /// Runs a command into `cat >/dev/null` and watches its memory, and that of its descendants.
    fn take(&mut self, command: &mut Command) -> Result<()> {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let pipe = cat.stdin.take().context("cat has no standard input")?;
        let clock = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(pipe).spawn()?;
        // Closes our copy of the pipe, without which `cat` would wait for us.
        command.stdout(Stdio::null());
        let (mut controller, mut worker) = (0.0_f64, 0.0_f64);
        let status = loop {
            let processes = system::family(child.id());
            controller = controller.max(system::peak_resident(child.id()).unwrap_or(0.0));
            let descendants = processes.iter().skip(1).filter_map(|p| system::peak_resident(*p));
            worker = descendants.fold(worker, f64::max);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        cat.wait()?;
        let seconds = clock.elapsed().as_secs_f64();
        if !status.success() {
            let program = Path::new(command.get_program());
            let words: Vec<&OsStr> =
                iter::once(program.as_os_str()).chain(command.get_args()).collect();
            bail!("{words:?} ended with {status}");
        }
        self.seconds.push(seconds);
        self.controller.push(controller);
        self.worker.push(worker);
        Ok(())
    }
}
