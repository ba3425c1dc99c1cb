//! The same code on several interpreters at once, and where their outputs part: `--on`.

mod differences;
mod rendering;

use std::process::ExitCode;

use bioxen::{EndedBy, Fleet, Interpreter, Run, VmName, VmSpec};

use crate::code::Code;
use crate::execution::{self, Execution};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;
use crate::standard_input::{self, Shared};
use crate::{fleet, json, runtime, shown};

/// Which interpreters to compare.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct On {
    /// Run the same on each of these, such as 5.1,5.4,luajit, and compare
    ///
    /// Each runs in a VM of its own, all at once. Shows how each run ended and where outputs first
    /// differ. The exit code is 0 if all finished alike with the same output, else 1.
    #[arg(
        long = "on",
        value_name = "LUA,LUA,…",
        value_delimiter = ',',
        conflicts_with = "lua",
        help_heading = "VM"
    )]
    interpreters: Vec<String>,
}

impl On {
    /// Does an execution as it is, or on each of the interpreters if there are any.
    pub(crate) fn perform(self, execution: Execution) -> Result<ExitCode, Failure> {
        if self.interpreters.is_empty() {
            return execution.perform();
        }
        Comparison { execution, interpreters: self.interpreters }.perform()
    }
}

/// One execution to do on several interpreters.
struct Comparison {
    execution: Execution,
    interpreters: Vec<String>,
}

/// What became of it on one interpreter.
struct Outcome {
    /// As the command line names it.
    interpreter: String,
    /// The run, or why there was none.
    run: Result<Finished, Failure>,
}

/// A run, and what a person would have seen of its result.
struct Finished {
    run: Run,
    /// Standard output, and the returned values where those are shown.
    output: Vec<u8>,
}

impl Comparison {
    /// Does it, and returns success if all interpreters agree.
    fn perform(self) -> Result<ExitCode, Failure> {
        runtime::block_on(async {
            let mut signals = Signals::listen()?;
            let place = fleet::of(&self.execution.spec)?;
            let outcomes = signals.or_stop(self.run_all(&place.fleet)).await;
            fleet::shut_down(&place.fleet).await;
            self.show(&outcomes?).await
        })
    }

    async fn run_all(&self, fleet: &Fleet) -> Result<Vec<Outcome>, Failure> {
        let mut inputs: Vec<Option<Shared>> = if self.execution.reads_input {
            standard_input::shared(self.interpreters.len()).into_iter().map(Some).collect()
        } else {
            self.interpreters.iter().map(|_| None).collect()
        };
        let runs: Vec<_> = (self.interpreters.iter().zip(&mut inputs).enumerate())
            .map(|(index, (interpreter, input))| {
                let spec = self.spec(index, interpreter);
                let run = run(fleet.clone(), spec, self.execution.code.clone(), input.take());
                (interpreter, tokio::spawn(run))
            })
            .collect();
        let mut outcomes = Vec::new();
        for (interpreter, run) in runs {
            let run = run.await.expect("a run neither panics nor is aborted");
            outcomes.push(Outcome { interpreter: interpreter.clone(), run });
        }
        Ok(outcomes)
    }

    fn spec(&self, index: usize, interpreter: &str) -> VmSpec {
        let group = VmName::new("on").expect("a constant and valid name");
        let name = VmName::member(&group, index).expect("a group's member has a valid name");
        self.execution.spec.clone().named(name).interpreter(Interpreter::parse(interpreter))
    }

    async fn show(&self, outcomes: &[Outcome]) -> Result<ExitCode, Failure> {
        let rendered = if self.execution.json {
            json::render(&rendering::objects(outcomes))
        } else {
            rendering::table_and_differences(outcomes).into_bytes()
        };
        Output::new().write(bioxen::Stream::Stdout, &rendered).await?;
        Ok(if agree(outcomes) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn run(
    fleet: Fleet,
    spec: VmSpec,
    code: Code,
    input: Option<Shared>,
) -> Result<Finished, Failure> {
    let vm = fleet::create(&fleet, spec).await?;
    let mut evaluation = code.in_vm(&vm).fresh();
    if let Some(input) = input {
        evaluation = evaluation.stdin(input);
    }
    let run = execution::whole(evaluation.await.map_err(Failure::Evaluate)?)?;
    let mut output = run.stdout.clone();
    if code.shows_values() {
        output.extend(run.record.values.iter().flat_map(shown::value_line));
    }
    Ok(Finished { run, output })
}

/// Whether all ran to their end, with the same exit code and the same output.
fn agree(outcomes: &[Outcome]) -> bool {
    let endings = outcomes.iter().map(|outcome| {
        let Finished { run, output } = outcome.run.as_ref().ok()?;
        let ending = &run.record.ending;
        (ending.ended_by == EndedBy::Finished).then_some((ending.exit_code, output))
    });
    let endings: Option<Vec<_>> = endings.collect();
    endings.is_some_and(|endings| endings.windows(2).all(|pair| pair[0] == pair[1]))
}

/// The outputs that there are, each with the interpreters that gave it, in order of first appearance.
fn groups(outcomes: &[Outcome]) -> Vec<(Vec<&str>, &[u8])> {
    let mut groups: Vec<(Vec<&str>, &[u8])> = Vec::new();
    for Outcome { interpreter, run } in outcomes {
        let Ok(Finished { output, .. }) = run else { continue };
        match groups.iter_mut().find(|(_, known)| known == output) {
            Some((names, _)) => names.push(interpreter),
            None => groups.push((vec![interpreter], output)),
        }
    }
    groups
}
