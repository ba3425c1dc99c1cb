//! One run in a VM of its own, shown as it happens: what `run` and `eval` do.

use std::path::PathBuf;
use std::process::ExitCode;

use bioxen::{Fleet, Run, Running, VmSpec};
use bioxen_xcp::ssh::files::FileError;

use crate::code::Code;
use crate::failure::Failure;
use crate::fleet::Place;
use crate::output::Output;
use crate::signals::{Signals, Stop};
use crate::{ending, fleet, json, progress, runtime, shown};

/// A run to do, and how to show it.
pub(crate) struct Execution {
    /// The VM to make for it.
    pub(crate) spec: VmSpec,
    /// What to run there.
    pub(crate) code: Code,
    /// Whether the code may read the command's standard input.
    pub(crate) reads_input: bool,
    /// Whether the result is the record, for a program.
    pub(crate) json: bool,
    /// What is brought back from a virtual machine at the end.
    pub(crate) results: Vec<PathBuf>,
}

impl Execution {
    /// Does it, and returns what the shell should see.
    pub(crate) fn perform(self) -> Result<ExitCode, Failure> {
        runtime::block_on(self.perform_async())
    }

    async fn perform_async(self) -> Result<ExitCode, Failure> {
        let place = fleet::of(&self.spec)?;
        let outcome = self.perform_in(&place).await;
        fleet::shut_down(&place.fleet).await;
        outcome
    }

    /// Does it in a fleet that is there.
    pub(crate) async fn perform_in(&self, place: &Place) -> Result<ExitCode, Failure> {
        let mut signals = Signals::listen()?;
        let mut output = Output::new();
        let running = {
            let _shown = progress::Shown::of(place);
            signals.or_stop(self.start(&place.fleet)).await?
        };
        let run = if self.json {
            finish(running, &mut signals, None).await?
        } else {
            finish(running, &mut signals, Some(&mut output)).await?
        };
        let run = whole(run)?;
        self.show(&run, &mut output).await?;
        self.bring_back(place).await?;
        Ok(ending::exit_code(&run.record.ending))
    }

    /// Copies what the code could write from the guest, as far as it is there.
    async fn bring_back(&self, place: &Place) -> Result<(), Failure> {
        let Some(machines) = place.machines.as_ref().filter(|_| !self.results.is_empty()) else {
            return Ok(());
        };
        let vm = &self.spec.name;
        let lost = || Failure::Lost { vm: vm.clone() };
        let connection = machines.connection(vm).await.ok_or_else(lost)?;
        let files = connection.files().await.map_err(|_| lost())?;
        for path in &self.results {
            let Some(there) = path.to_str() else { continue };
            match files.download_tree(there, path, |_| {}).await {
                Err(FileError::Remote { missing: true, .. }) => {}
                other => drop(other.map_err(|error| Failure::File(Box::new(error)))?),
            }
        }
        Ok(())
    }

    async fn start(&self, fleet: &Fleet) -> Result<Running, Failure> {
        let vm = fleet::create(fleet, self.spec.clone()).await?;
        let mut evaluation = self.code.in_vm(&vm).fresh();
        if self.reads_input {
            evaluation = evaluation.stdin(tokio::io::stdin());
        }
        evaluation.start().await.map_err(Failure::Evaluate)
    }

    async fn show(&self, run: &Run, output: &mut Output) -> Result<(), Failure> {
        if self.json {
            let object = json::render(&json::RunObject::new(run));
            return output.write(bioxen::Stream::Stdout, &object).await;
        }
        if self.code.shows_values() {
            let lines: Vec<u8> = run.record.values.iter().flat_map(shown::value_line).collect();
            output.write(bioxen::Stream::Stdout, &lines).await?;
        }
        if let Some(report) = ending::report(&run.record) {
            output.finish_line();
            report.error();
        }
        Ok(())
    }
}

/// Waits for the end of a run; its output goes to `output` as it comes, or else into the [`Run`].
///
/// A first Ctrl-C cancels the run, whose end is still awaited; a second one, or SIGTERM, gives up on
/// it.
pub(crate) async fn finish(
    running: Running,
    signals: &mut Signals,
    mut output: Option<&mut Output>,
) -> Result<Run, Failure> {
    let canceller = running.canceller();
    let mut asked_once = false;
    let run = {
        let end = pass_on(running, output.as_deref_mut());
        tokio::pin!(end);
        loop {
            tokio::select! {
                run = &mut end => break run,
                stop = signals.next() => match stop {
                    Stop::Interrupt if !asked_once => {
                        canceller.cancel();
                        asked_once = true;
                    }
                    stop => return Err(Failure::Stopped(stop)),
                },
            }
        }
    };
    if let Some(output) = output.filter(|_| asked_once) {
        output.note_echoed_key();
    }
    run
}

async fn pass_on(mut running: Running, output: Option<&mut Output>) -> Result<Run, Failure> {
    if let Some(output) = output {
        while let Some(chunk) = running.next_chunk().await.map_err(Failure::Evaluate)? {
            output.pass_on(&chunk).await?;
        }
    }
    running.finish().await.map_err(Failure::Evaluate)
}

/// The run, unless it was none because the code is not whole.
pub(crate) fn whole(run: Run) -> Result<Run, Failure> {
    if run.incomplete { Err(Failure::Incomplete) } else { Ok(run) }
}
