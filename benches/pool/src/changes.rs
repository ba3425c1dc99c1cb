//! From a change in the pool to whoever watches it, and what a watcher asks while nothing changes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_report::{Report, Row, Samples, Target, Unit};

use crate::Setting;
use crate::client::{Client, Kind};
use crate::proxy::Proxy;
use crate::raw::Raw;
use crate::simulator::Simulator;

/// What is watched by all; `xen-api` cannot do without tasks and the pool.
const WATCHED: &str = "VM pool task";

/// Pauses from this on are not taken as often as others.
const SHORT: Duration = Duration::from_millis(50);

/// A watcher, and how it is run.
struct Watcher {
    kind: Kind,
    name: &'static str,
    /// How long the JavaScript client waits between requests, in milliseconds.
    debounce: u32,
    /// How long nothing happens before each change, at least, so that the watcher is waiting for one.
    pause: Duration,
}

const WATCHERS: [Watcher; 4] = [
    Watcher {
        kind: Kind::Ours,
        name: "xenapi, several threads",
        debounce: 0,
        pause: Duration::from_millis(20),
    },
    Watcher {
        kind: Kind::OursSmall,
        name: "xenapi, one thread",
        debounce: 0,
        pause: Duration::from_millis(20),
    },
    Watcher {
        kind: Kind::Npm,
        name: "xen-api (npm), told not to wait between requests",
        debounce: 0,
        pause: Duration::from_millis(20),
    },
    Watcher {
        kind: Kind::Npm,
        name: "xen-api (npm), as it comes",
        debounce: 200,
        pause: Duration::from_millis(300),
    },
];

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let target = Target::AtMost(5e-3);
    let simulator = Simulator::of(setting.vms)?;
    let samples = take(setting, &simulator, Duration::ZERO)?;
    tell(report, "from a change to the watcher", &samples, Some(target));
    drop(simulator);
    let gathering = Simulator::gathering(setting.vms, "50ms")?;
    let samples = take(setting, &gathering, Duration::from_millis(100))?;
    tell(report, "the same, of a server that gathers events for 50 ms", &samples, None);
    quiet(setting, &gathering, report)
}

type Measured = Vec<(&'static Watcher, Samples)>;

/// A change, and the next one once it has been heard of, after at least this pause; the watchers take
/// turns.
fn take(setting: &Setting, simulator: &Simulator, least: Duration) -> Result<Measured> {
    let vm = Raw::log_in(simulator)?.some_vm()?;
    let mut watchers = Vec::new();
    for watcher in &WATCHERS {
        let Some(mut client) = Client::start(watcher.kind, setting, simulator.url())? else {
            continue;
        };
        client.ask(&format!("watch {} {WATCHED}", watcher.debounce))?;
        watchers.push((watcher, client, Samples::default()));
    }
    for _ in 0..setting.effort.of(10) {
        for (watcher, client, samples) in &mut watchers {
            let pause = watcher.pause.max(least);
            let count = if pause < SHORT { 20 } else { 5 };
            let command = format!("changes {vm} {count} {}", pause.as_millis());
            samples.extend(client.ask(&command)?.seconds());
        }
    }
    Ok(watchers.into_iter().map(|(watcher, _, samples)| (watcher, samples)).collect())
}

fn tell(report: &mut Report, what: &str, measured: &Measured, target: Option<Target>) {
    let is_ours = |watcher: &Watcher| matches!(watcher.kind, Kind::Ours | Kind::OursSmall);
    for (watcher, ours) in measured.iter().filter(|(watcher, _)| is_ours(watcher)) {
        let mut row = Row::new(format!("{what}: {}", watcher.name), Unit::Time, ours);
        if let Some(target) = target {
            row = row.target(target);
        }
        let mut others = measured.iter().filter(|(watcher, _)| !is_ours(watcher)).peekable();
        if others.peek().is_none() {
            report.add(row.clone());
        }
        others.for_each(|(other, samples)| report.add(row.clone().against(other.name, samples)));
    }
}

/// How many requests a watcher sends while it has nothing to tell.
fn quiet(setting: &Setting, simulator: &Simulator, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(u64::from(setting.effort.of(20)));
    let proxy = Proxy::start(simulator)?;
    let mut client = Client::start(Kind::Ours, setting, proxy.url())?.context("it is built in")?;
    client.ask(&format!("watch 0 {WATCHED}"))?;
    // The request that waits is on its way.
    std::thread::sleep(Duration::from_secs(1));
    let before = proxy.requests();
    std::thread::sleep(time);
    let during = Samples::once(f64::from(proxy.requests() - before));
    // What the watch asks for from here on shows that requests are counted.
    let vm = Raw::log_in(simulator)?.some_vm()?;
    client.ask(&format!("changes {vm} 1 0"))?;
    anyhow::ensure!(proxy.requests() > before, "the proxy counts no requests");
    let what = format!("requests of a watcher in {} s without a change", time.as_secs());
    report.add(Row::new(what, Unit::Count, &during).target(Target::AtMost(0.0)));
    Ok(())
}
