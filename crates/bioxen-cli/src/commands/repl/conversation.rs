//! A session with one VM: evaluates, shows what comes of it, and keeps the VM usable.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use bioxen::{EndedBy, Limit, Run, Session, Stream, Value, Vm, VmSpec, VmState};

use crate::failure::Failure;
use crate::fleet::Place;
use crate::output::Output;
use crate::report::Report;
use crate::signals::Signals;
use crate::{ending, execution, fleet, progress};

/// A key that is pressed does not wait longer than this for the session's answer.
const LONGEST_ANSWER: Duration = Duration::from_millis(500);

/// What became of an input.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It ran to its end, and its values were shown.
    Finished,
    /// It did not; why was shown.
    Failed,
    /// It wants more lines, and was not run.
    Incomplete,
    /// The code called `os.exit`.
    Left(ExitCode),
}

/// A conversation with one VM.
pub(super) struct Conversation {
    place: Place,
    vm: Vm,
    session: Session,
    output: Output,
    signals: Signals,
}

impl Conversation {
    /// Makes the VM. Needs a runtime.
    pub(super) async fn start(spec: VmSpec) -> Result<Self, Failure> {
        let mut signals = Signals::listen_for_interrupt()?;
        let place = fleet::of(&spec)?;
        let vm = {
            let _shown = progress::Shown::of(&place);
            signals.or_stop(fleet::create(&place.fleet, spec)).await
        };
        // A machine that was being made is removed before the command ends.
        let vm = match vm {
            Ok(vm) => vm,
            Err(failure) => {
                fleet::shut_down(&place.fleet).await;
                return Err(failure);
            }
        };
        Ok(Self { session: vm.session(), vm, place, output: Output::new(), signals })
    }

    /// The VM that is talked to.
    pub(super) fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Evaluates an input and shows what comes of it.
    pub(super) async fn evaluate(&mut self, input: &str) -> Result<Verdict, Failure> {
        // A Ctrl-C from before is not meant for this evaluation.
        self.signals = Signals::listen_for_interrupt()?;
        let running = self.session.start(input).await.map_err(Failure::Evaluate)?;
        let run = execution::finish(running, &mut self.signals, Some(&mut self.output)).await?;
        if run.incomplete {
            return Ok(Verdict::Incomplete);
        }
        self.show(&run).await?;
        self.revive().await?;
        Ok(match run.record.ending.ended_by {
            EndedBy::Finished if run.exited => Verdict::Left(ending::exit_code(&run.record.ending)),
            EndedBy::Finished => Verdict::Finished,
            _ => Verdict::Failed,
        })
    }

    /// Asks the session something for the command's own use; nothing is shown.
    pub(super) async fn ask(&self, question: String) -> Option<Vec<Value>> {
        let evaluation = self.vm.eval(question).wall_time(Limit::Of(LONGEST_ANSWER));
        let run = evaluation.await.ok()?;
        (run.record.ending.ended_by == EndedBy::Finished).then_some(run.record.values)
    }

    /// Waits for `work` unless Ctrl-C comes first.
    pub(super) async fn or_stop<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.signals.or_stop(work).await
    }

    /// Ends the VM.
    pub(super) async fn end(self) {
        fleet::shut_down(&self.place.fleet).await;
    }

    async fn show(&mut self, run: &Run) -> Result<(), Failure> {
        let values = run.record.values.iter().map(|value| format!("{value}\n"));
        self.output.write(Stream::Stdout, values.collect::<String>().as_bytes()).await?;
        if let Some(report) = ending::report(&run.record) {
            self.output.finish_line();
            report.error();
        }
        Ok(())
    }

    /// Gives the VM a new worker if it lost its own, and says so.
    async fn revive(&mut self) -> Result<(), Failure> {
        if matches!(self.vm.status(), VmState::Running { .. } | VmState::Starting) {
            return Ok(());
        }
        self.vm.start().await.map_err(Failure::Restart)?;
        Report::new("the Lua state was lost; this goes on with an empty one").warning();
        Ok(())
    }
}
