//! How soon code is ended that runs on after its limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bench_report::{Effort, Report, Row, Samples, Target, Unit};
use bioxen::{EndedBy, Vm};

use crate::ours::{Flavour, Ours, expect_value};

/// How long the code may run.
const LIMIT: Duration = Duration::from_millis(30);

/// What runs in the VM before: long enough for its limits to be watched, and with the usual ones.
const BEFORE: &str = "kept = 7 local start = os.clock() repeat until os.clock() > start + 0.005";

/// Code that does not end, and whether the VM's state survives its end.
struct Runaway {
    what: &'static str,
    code: &'static str,
    state_kept: bool,
}

const RUNAWAYS: [Runaway; 6] = [
    Runaway { what: "a loop", code: "while true do end", state_kept: true },
    Runaway {
        what: "a loop in a coroutine",
        code: "coroutine.wrap(function() while true do end end)()",
        state_kept: true,
    },
    Runaway {
        what: "a loop of pcalls",
        code: "while true do pcall(function() while true do end end) end",
        state_kept: true,
    },
    Runaway {
        what: "a loop in C (a pattern that backtracks)",
        code: "return (('a'):rep(500)):find(('.-'):rep(20) .. 'b')",
        state_kept: false,
    },
    Runaway {
        what: "a finaliser",
        code: "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()",
        state_kept: false,
    },
    Runaway {
        what: "a message handler",
        code: "xpcall(error, function() while true do end end)",
        state_kept: false,
    },
];

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let ours = Ours::new(Flavour::MultiThread, 0)?;
    let vm = ours.create("runaway")?;
    let mut late: Vec<Samples> = RUNAWAYS.iter().map(|_| Samples::default()).collect();
    for _ in 0..effort.of(30) {
        for (runaway, samples) in RUNAWAYS.iter().zip(&mut late) {
            samples.push(ours.block_on(time_after_limit(vm.clone(), runaway))?);
        }
    }
    for (runaway, samples) in RUNAWAYS.iter().zip(&late) {
        let (how, target) =
            if runaway.state_kept { ("state kept", 5e-3) } else { ("killed", 100e-3) };
        let what = format!("{} ended after its limit, {how}", runaway.what);
        let row = Row::new(what, Unit::Time, samples).target(Target::AtMost(target));
        report.add(row.quoted("never"));
    }
    Ok(())
}

/// The time from the limit until the result is there.
async fn time_after_limit(vm: Vm, runaway: &'static Runaway) -> Result<f64> {
    if vm.status().name() != "running" {
        vm.start().await?;
    }
    vm.eval(BEFORE).await?;
    let clock = Instant::now();
    let run = vm.eval(runaway.code).wall_time(LIMIT).await?;
    let seconds = clock.elapsed().saturating_sub(LIMIT).as_secs_f64();
    let ending = &run.record.ending;
    if ending.ended_by != EndedBy::WallTime || ending.state_kept != runaway.state_kept {
        bail!("{} ended otherwise than it should: {ending:?}", runaway.what);
    }
    if runaway.state_kept {
        expect_value(&vm.eval("kept").await?, 7)?;
    }
    Ok(seconds)
}
