//! `bioxen sim status`: whether the simulated pool runs, where, since when, and what is in it.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::place::{Place, Served, State};
use super::{Guests, counted};
use crate::commands::pool::ask_pool;
use crate::failure::Failure;
use crate::report::Report;
use crate::{json, output, runtime, shown};

const AFTER_HELP: &str = "\
The exit code is 0 if the pool runs, 3 if there is none or it has crashed, and 5 if it does not answer.";

/// Say whether the simulated pool runs, where, since when, and what is in it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

/// How things are, for a program.
#[derive(Serialize)]
struct Status<'a> {
    /// `running`, `crashed` or `stopped`.
    state: &'static str,
    #[serde(flatten)]
    served: Option<&'a Served>,
    #[serde(flatten)]
    contents: Option<Contents>,
}

/// What is in a pool that runs.
#[derive(Clone, Copy, Serialize)]
struct Contents {
    hosts: usize,
    /// VMs, without templates and snapshots.
    vms: usize,
    /// How many of them run.
    running: usize,
}

/// Says it.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let place = Place::open()?;
    let (state, log) = (place.state()?, place.log());
    let status = match &state {
        State::Running(served) => {
            let pool = super::start::settings(&place, served)?;
            // It takes a while, and changes nothing that another command might.
            drop(place);
            let contents = runtime::block_on(async { ask_pool(&pool, contents).await })?;
            Status { state: "running", served: Some(served), contents: Some(contents) }
        }
        State::Crashed(served) => Status { state: "crashed", served: Some(served), contents: None },
        State::Stopped => Status { state: "stopped", served: None, contents: None },
    };
    let rendered = if arguments.json { json::render(&status) } else { status.text().into_bytes() };
    output::print(&rendered)?;
    match &state {
        State::Running(_) => Ok(ExitCode::SUCCESS),
        State::Crashed(_) => {
            let hint = format!(
                "start it again with `bioxen sim start`; it wrote its last words to `{}`",
                log.display()
            );
            let message = "the simulated pool's process ended without being told to";
            Report { hint: Some(hint), ..Report::new(message) }.warning();
            Ok(ExitCode::from(3))
        }
        State::Stopped => Ok(ExitCode::from(3)),
    }
}

async fn contents(client: &xenapi::Client) -> Result<Contents, xenapi::Error> {
    let (hosts, vms) = tokio::try_join!(
        client.host().get_all().into_future(),
        client.vm().get_all_records().into_future(),
    )?;
    let real =
        |vm: &&xenapi::vm::Record| !vm.is_a_template && !vm.is_a_snapshot && !vm.is_control_domain;
    let real: Vec<_> = vms.values().filter(real).collect();
    let runs = |vm: &&&xenapi::vm::Record| vm.power_state == xenapi::enums::VmPowerState::Running;
    Ok(Contents { hosts: hosts.len(), vms: real.len(), running: real.iter().filter(runs).count() })
}

impl Status<'_> {
    fn text(&self) -> String {
        let Some(served) = self.served else { return "the simulated pool does not run\n".into() };
        let url = served.urls.first().map(String::as_str).unwrap_or_default();
        let since = shown::time(served.since);
        let Some(contents) = self.contents else {
            return format!("the simulated pool has crashed: it was at {url} since {since}\n");
        };
        let guests = match served.guests {
            Guests::Process => "processes that can be logged into",
            Guests::None => "none: addresses where nobody answers",
        };
        let age = age(Timestamp::now().duration_since(served.since));
        format!(
            "address  {url}\nsince    {since}, {age}\nhosts    {}\nvms      {}, {} running\n\
             guests   {guests}\n",
            contents.hosts, contents.vms, contents.running,
        )
    }
}

/// For how long it has run, as people say it.
fn age(age: SignedDuration) -> String {
    let minutes = age.as_secs().max(0) / 60;
    let count = |count: i64, noun| counted(usize::try_from(count).unwrap_or_default(), noun);
    match (minutes / 1440, minutes / 60, minutes) {
        (0, 0, 0) => "less than a minute".into(),
        (0, 0, minutes) => count(minutes, "minute"),
        (0, hours, _) => count(hours, "hour"),
        (days, _, _) => count(days, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let told =
            [59, 60, 3599, 7200, 90_000, 172_800].map(|it| age(SignedDuration::from_secs(it)));
        let expected =
            ["less than a minute", "1 minute", "59 minutes", "2 hours", "1 day", "2 days"];
        assert_eq!(told, expected);
    }
}
