//! One small evaluation in a live VM, from the controller to the worker and back.

use std::time::Instant;

use anyhow::Result;
use bench_report::system::Placement;
use bench_report::{Effort, Report, Row, Samples, Target, Unit, timed};
use bioxen::{Vm, VmSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::alternatives::{Helper, LUA, Partner, spawn};
use crate::ours::{Flavour, Ours, expect_value};

const CODE: &str = "return 1+1";

/// Evaluations of one kind in a row, before it is the next one's turn.
const IN_A_ROW: u32 = 100;

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    for placement in Placement::ALL {
        let placed = placement.enter()?;
        let measured = Measured::take(effort.of(100))?;
        drop(placed);
        measured.tell(placement, report);
    }
    Ok(())
}

#[derive(Default)]
struct Measured {
    ping: Samples,
    tokio_ping: Samples,
    spawn: Samples,
    eval: [Samples; 2],
    fresh: [Samples; 2],
    blocking: Samples,
}

impl Measured {
    fn take(rounds: u32) -> Result<Self> {
        let mut pong = Partner::start(Helper::Pong)?;
        let ours = [Ours::new(Flavour::ALL[0], 0)?, Ours::new(Flavour::ALL[1], 0)?];
        let vms = [ours[0].create("eval")?, ours[1].create("eval")?];
        let blocking = bioxen::blocking::Fleet::new()?;
        let blocking_vm = blocking.create(VmSpec::basic("eval")?)?;
        let mut measured = Self::default();
        for _ in 0..rounds {
            for _ in 0..IN_A_ROW {
                measured.ping.push(pong.ping()?);
            }
            measured.tokio_ping.extend(tokio_pings(&ours[0], &pong)?);
            for (flavour, (ours, vm)) in ours.iter().zip(&vms).enumerate() {
                measured.eval[flavour].extend(ours.block_on(evaluations(vm.clone(), false))?);
                measured.fresh[flavour].extend(ours.block_on(evaluations(vm.clone(), true))?);
            }
            for _ in 0..IN_A_ROW {
                let (run, seconds) = timed(|| blocking_vm.eval(CODE));
                expect_value(&run?, 2)?;
                measured.blocking.push(seconds);
            }
            measured.spawn.extend(spawn(LUA, &["-e", CODE]).into_iter().collect());
        }
        Ok(measured)
    }

    fn tell(&self, placement: Placement, report: &mut Report) {
        let placed = placement.name();
        for (flavour, samples) in Flavour::ALL.iter().zip(&self.eval) {
            let what = format!("eval `return 1+1`, {}, {placed}", flavour.name());
            let row = Row::new(&what, Unit::Time, samples);
            let floor = row.against("1-byte ping-pong of two processes", &self.ping);
            report.add(floor.target(Target::RatioAtMost(2.0)).quoted("250 ms, 1.06 ms"));
            let row = Row::new(&what, Unit::Time, samples);
            let start = row.against(format!("{LUA} -e 'return 1+1'"), &self.spawn);
            report.add(start.target(Target::RatioAtMost(1.0 / 50.0)));
        }
        let what = format!("eval through `bioxen::blocking`, {placed}");
        let row = Row::new(what, Unit::Time, &self.blocking);
        report.add(row.against("1-byte ping-pong of two processes", &self.ping));
        let row =
            Row::new(format!("1-byte ping through tokio, {placed}"), Unit::Time, &self.tokio_ping);
        report.add(row.against("1-byte ping-pong of two processes", &self.ping));
        for (flavour, samples) in Flavour::ALL.iter().zip(&self.fresh) {
            let what = format!("fresh run, {}, {placed}", flavour.name());
            let row = Row::new(what, Unit::Time, samples)
                .target(Target::AtMost(150e-6))
                .quoted("1.06 ms");
            report.add(row.against(format!("{LUA} -e 'return 1+1'"), &self.spawn));
        }
    }
}

async fn evaluations(vm: Vm, fresh: bool) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..IN_A_ROW {
        let evaluation = vm.eval(CODE);
        let evaluation = if fresh { evaluation.fresh() } else { evaluation };
        let clock = Instant::now();
        let run = evaluation.await?;
        samples.push(clock.elapsed().as_secs_f64());
        expect_value(&run, 2)?;
    }
    Ok(samples)
}

/// What an async runtime adds to the floor.
fn tokio_pings(ours: &Ours, pong: &Partner) -> Result<Samples> {
    let stream = pong.stream()?;
    stream.set_nonblocking(true)?;
    let back = stream.try_clone()?;
    let samples = ours.block_on(async move {
        let mut stream = UnixStream::from_std(stream)?;
        let mut samples = Samples::default();
        let mut byte = [1];
        for _ in 0..IN_A_ROW {
            let clock = Instant::now();
            stream.write_all(&byte).await?;
            stream.read_exact(&mut byte).await?;
            samples.push(clock.elapsed().as_secs_f64());
        }
        Ok(samples)
    });
    back.set_nonblocking(false)?;
    samples
}
