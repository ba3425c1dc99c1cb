//! Many small calls, one at a time and 32 at once.

use anyhow::Result;
use bench_report::system::Placement;
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::client::{Client, Kind};
use crate::raw::Raw;
use crate::simulator::Simulator;

const KINDS: [Kind; 4] = [Kind::Ours, Kind::OursSmall, Kind::Python, Kind::Npm];
const CALLS: u32 = 10_000;
const ROUNDS: u32 = 5;

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    for placement in Placement::ALL {
        let placed = placement.enter()?;
        measure_placed(setting, placement, report)?;
        drop(placed);
    }
    Ok(())
}

/// On one processor nobody waits for another to wake up, which is what one call at a time does most
/// of all on some machines; but many calls at once are for all processors.
fn measure_placed(setting: &Setting, placement: Placement, report: &mut Report) -> Result<()> {
    let simulator = Simulator::of(setting.vms)?;
    let vm = Raw::log_in(&simulator)?.some_vm()?;
    let mut clients = Client::start_all(&KINDS, setting, simulator.url())?;
    for (at_once, least) in [(1, 5.0), (32, 20.0)] {
        let command = format!("calls {vm} {} {at_once}", setting.effort.of(CALLS));
        let mut rates: Vec<(Kind, Samples)> = Vec::new();
        for round in 0..=setting.effort.of(ROUNDS) {
            for (index, (kind, client)) in clients.iter_mut().enumerate() {
                let answer = client.ask(&command)?;
                // The first round opens connections and warms caches.
                if round == 0 {
                    rates.push((*kind, Samples::default()));
                } else {
                    rates[index].1.extend(answer.rates());
                }
            }
        }
        tell(report, (at_once, placement), least, &rates);
    }
    Ok(())
}

fn tell(
    report: &mut Report,
    (at_once, placement): (u32, Placement),
    least: f64,
    rates: &[(Kind, Samples)],
) {
    let of = |wanted| rates.iter().find(|(kind, _)| *kind == wanted).map(|(_, rates)| rates);
    for ours in [Kind::Ours, Kind::OursSmall] {
        let Some(rate) = of(ours) else { continue };
        let (ours, placement) = (ours.name(), placement.name());
        let what = format!("small calls, {at_once} in flight, {placement}: {ours}");
        for (other, target) in [(Kind::Python, Some(least)), (Kind::Npm, None)] {
            let Some(others) = of(other) else { continue };
            let row = Row::new(&what, Unit::Rate, rate).against(other.name(), others);
            report.add(match target {
                Some(least) => row.target(Target::RatioAtLeast(least)),
                None => row,
            });
        }
    }
}
