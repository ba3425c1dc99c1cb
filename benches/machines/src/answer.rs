//! From a template to the first answer of Lua.
//!
//! What is compared is each side's own share of the time: all of it, less what the shortest way takes
//! ([`bare`](crate::bare)), which is the same for all. So are subtracted the pool's work on each of the necessary
//! calls, the guest's boot, its key exchange and login, cloud-init, and the start of a program. What
//! remains is what each side does beside that, and how it waits. The replaced library did not wait for
//! cloud-init, so that what is subtracted from the time of the script that polls as it did is rather too much.

use anyhow::Result;
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::lab::Lab;

const ROUNDS: u32 = 20;

/// How the script asks for the address and tries SSH, in seconds: as the replaced library did, and as often as
/// can be thought of.
const WAYS: [(&str, &str, u32); 2] = [
    ("XenAPI and paramiko, polling every 5 s and 10 s", "5 10", 4),
    ("the same, every 0.1 s, waiting for cloud-init", "0.1 0.1 grown", 1),
];

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let lab = Lab::with_guests(setting, "0s")?;
    let mut ours = lab.controller()?;
    let mut python = lab.python(setting)?;
    ours.ask("log-in")?;
    let (mut floor, mut wall) = (Samples::default(), Samples::default());
    let mut others = vec![Samples::default(); WAYS.len()];
    for round in 0..=setting.effort.of(ROUNDS) {
        let (bare, answer) = (ours.time("bare")?, ours.time("answer")?);
        // The first round opens connections and warms caches.
        if round == 0 {
            continue;
        }
        floor.extend(bare);
        wall.extend(answer);
        for ((_, polls, every), samples) in WAYS.iter().zip(&mut others) {
            if let Some(python) = &mut python
                && round % every == 1 % every
            {
                samples.extend(python.time(&format!("answer {polls}"))?);
            }
        }
    }
    let least = floor.median().unwrap_or_default();
    let what = "template to first answer: the shortest way, the pool's and the guest's time";
    report.add(Row::new(what, Unit::Time, &floor));
    for ((name, ..), samples) in WAYS.iter().zip(&others) {
        let row = Row::new("template to first answer: all of it", Unit::Time, &wall);
        report.add(row.against(*name, samples));
    }
    let own = wall.less(least);
    let what = "template to first answer: own share";
    report.add(Row::new(what, Unit::Time, &own).target(Target::AtMost(0.15)));
    for (index, ((name, ..), samples)) in WAYS.iter().zip(&others).enumerate() {
        let row = Row::new(what, Unit::Time, &own).against(*name, &samples.less(least));
        report.add(if index == 0 { row.target(Target::RatioAtMost(0.1)) } else { row });
    }
    Ok(())
}
