//! Asking something of the pool for a VM: as a task, until a deadline, and again where that helps.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;
use xenapi::enums::VmPowerState;
use xenapi::{AsyncCall, Call, Client, FailureKind, Ref, class, wire::FromWire};

use super::{Cause, Done, Machine, MachineError, PowerState};
use crate::connected_pool::Permit;

/// The first pause before something is asked again; each is twice as long as the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a disk may seem to be in use after it was detached.
const TRAILING: Duration = Duration::from_secs(30);
/// How long the mirror may take to show what is known to be so.
pub(super) const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// What passes when whatever else goes on with the VM is over.
const BUSY: [&str; 4] =
    ["OTHER_OPERATION_IN_PROGRESS", "TOO_MANY_PENDING_TASKS", "TOO_BUSY", "HOST_STILL_BOOTING"];

/// One thing that is to become of a VM, until when.
#[derive(Clone, Copy)]
pub(super) struct Step<'m> {
    pub(super) machine: &'m Machine,
    /// It completes "could not … vm".
    pub(super) name: &'static str,
    until: Instant,
}

impl Machine {
    pub(super) fn step(&self, name: &'static str) -> Step<'_> {
        self.step_beyond(name, Duration::ZERO)
    }

    /// A step that may take this much longer.
    pub(super) fn step_beyond(&self, name: &'static str, more: Duration) -> Step<'_> {
        // A time that the clock cannot hold is never reached.
        let patience = self.patience.saturating_add(more).min(Duration::from_hours(24 * 365));
        Step { machine: self, name, until: Instant::now() + patience }
    }
}

impl<'m> Step<'m> {
    /// A part of it, with the same deadline.
    pub(super) fn part(self, name: &'static str) -> Step<'m> {
        Self { name, ..self }
    }

    /// How long there is until the deadline.
    pub(super) fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// What the pool said, as an error of this step.
    pub(super) fn failed(self, cause: impl Into<Cause>) -> MachineError {
        let (cause, vm) = (cause.into(), self.machine.name.clone());
        if cause.says_gone(&self.machine.reference.to_string()) {
            return MachineError::Gone { vm };
        }
        MachineError::Pool { vm, step: self.name, source: Box::new(cause) }
    }

    /// An error about the state that it is in.
    pub(super) fn in_state(self, state: &VmPowerState) -> MachineError {
        let vm = self.machine.name.clone();
        MachineError::State { vm, step: self.name, state: PowerState::from(state) }
    }

    /// Waits for a turn among the power operations of the pool.
    pub(super) async fn turn(self) -> Result<Permit, MachineError> {
        let turn = timeout_at(self.until, self.machine.pool.power_operation()).await;
        turn.map_err(|_| self.no_turn())
    }

    /// Waits for a turn among the clones on each storage repository that the VM has disks on.
    pub(super) async fn clone_turns(
        self,
        mut storages: Vec<Ref<class::Sr>>,
    ) -> Result<Vec<Permit>, MachineError> {
        // All callers take them in one order, so that none waits for another that waits for it.
        storages.sort();
        storages.dedup();
        let mut permits = Vec::new();
        for storage in &storages {
            let permit = timeout_at(self.until, self.machine.pool.cloning(storage)).await;
            permits.push(permit.map_err(|_| self.no_turn())?);
        }
        Ok(permits)
    }

    fn no_turn(self) -> MachineError {
        let (vm, after) = (self.machine.name.clone(), self.machine.patience);
        MachineError::NoTurn { vm, step: self.name, after }
    }

    /// What the pool says now that the VM is doing.
    pub(super) async fn state(self) -> Result<VmPowerState, MachineError> {
        self.call(|client| client.vm().get_power_state(&self.machine.reference)).await
    }

    /// Makes a call that takes no time.
    pub(super) async fn call<R: FromWire + Send + 'static>(
        self,
        call: impl FnOnce(&Client) -> Call<R>,
    ) -> Result<R, MachineError> {
        let call = call(self.machine.pool.client()).timeout(self.left());
        call.await.map_err(|source| self.failed(source))
    }

    /// Sets a field, again if the connection breaks before it is known whether the pool has heard.
    pub(super) async fn set(self, call: impl Fn(&Client) -> Call<()>) -> Result<(), MachineError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let again = pause > FIRST_PAUSE;
            match call(self.machine.pool.client()).timeout(self.left()).await {
                Err(error) if again && error.code() == Some("MAP_DUPLICATE_KEY") => return Ok(()),
                Err(error @ xenapi::Error::Transport { .. }) if pause < self.left() => {
                    debug!(vm = %self.machine.name, step = self.name, %error, "setting again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome.map_err(|source| self.failed(source)),
            }
        }
    }

    /// Carries a message out as a task. It is cancelled if this is dropped, or takes longer than there
    /// is time.
    pub(super) async fn run<R: FromWire + Send + 'static>(
        self,
        call: impl Fn(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        self.run_while(self.until, is_busy, call).await
    }

    /// Like [`Step::run`], for what does no harm when it is asked twice: it is, if the connection breaks
    /// before it is known whether the pool has heard.
    async fn insist<R: FromWire + Send + 'static>(
        self,
        call: impl Fn(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        self.run_while(self.until, |cause| is_busy(cause) || is_cut(cause), call).await
    }

    /// Asks the guest for something that does no harm when it is asked twice, within this time.
    pub(super) async fn ask_guest(
        self,
        grace: Duration,
        call: impl Fn(&Client) -> AsyncCall<()>,
    ) -> Result<(), Cause> {
        let until = self.until.min(Instant::now() + grace.min(self.left()));
        self.run_while(until, |cause| is_busy(cause) || is_cut(cause), call).await
    }

    /// Like [`Step::run`], with patience for a disk that has just been detached.
    pub(super) async fn run_on_disk<R: FromWire + Send + 'static>(
        self,
        call: impl Fn(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        let trails = self.trailing();
        self.run_while(self.until, |cause| is_busy(cause) || trails(cause), call).await
    }

    /// Like [`Step::run_on_disk`], but not as a task: that would cost the pool a call more.
    pub(super) async fn call_on_disk(
        self,
        call: impl Fn(&Client) -> AsyncCall<()>,
    ) -> Result<(), Cause> {
        let trails = self.trailing();
        let once = |limit| {
            let call = call(self.machine.pool.client()).timeout(limit);
            async move { Ok(call.await?) }
        };
        self.again_while(self.until, |cause| is_busy(cause) || trails(cause), once).await
    }

    /// Whether a disk is in use yet that was detached a moment ago: it is not, if the VM runs.
    fn trailing(self) -> impl Fn(&Cause) -> bool {
        let end = Instant::now() + TRAILING;
        move |cause| {
            let is_off = || {
                let vm = self.machine.pool.mirror().get(&self.machine.reference);
                vm.is_none_or(|vm| vm.power_state == VmPowerState::Halted)
            };
            cause.code() == Some("VDI_IN_USE") && Instant::now() < end && is_off()
        }
    }

    async fn run_while<R: FromWire + Send + 'static>(
        self,
        until: Instant,
        passes: impl Fn(&Cause) -> bool,
        call: impl Fn(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        self.again_while(until, passes, |limit| self.run_once(limit, &call)).await
    }

    async fn again_while<R, F: Future<Output = Result<R, Cause>>>(
        self,
        until: Instant,
        passes: impl Fn(&Cause) -> bool,
        once: impl Fn(Duration) -> F,
    ) -> Result<R, Cause> {
        let mut pause = FIRST_PAUSE;
        loop {
            let limit = until.saturating_duration_since(Instant::now());
            match once(limit).await {
                Err(cause) if passes(&cause) && Instant::now() + pause < until => {
                    debug!(vm = %self.machine.name, step = self.name, %cause, "asking again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Carries a message out as a task, once and within this time.
    async fn run_once<R: FromWire + Send + 'static>(
        self,
        limit: Duration,
        call: impl Fn(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        let began = Instant::now();
        let task = call(self.machine.pool.client()).timeout(limit).start_task().await?;
        let task = task.timeout(limit.saturating_sub(began.elapsed())).cancel_on_drop();
        Ok(task.await?)
    }

    /// Changes the power state to `wanted`. If the pool refused because it is so already, or did not
    /// say whether it was done, what counts is the state that is reached.
    pub(super) async fn change(
        self,
        wanted: &VmPowerState,
        call: impl Fn(&Client) -> AsyncCall<()>,
    ) -> Result<Done, MachineError> {
        let done = match self.insist(call).await {
            Ok(()) => Done::Now,
            Err(cause) => self.despite(cause, wanted).await?,
        };
        self.settle(wanted).await;
        Ok(done)
    }

    /// What a failure means for a VM that was to be in this state.
    pub(super) async fn despite(
        self,
        cause: Cause,
        wanted: &VmPowerState,
    ) -> Result<Done, MachineError> {
        let refused = cause
            .failure()
            .is_some_and(|failure| matches!(failure.kind(), FailureKind::VmBadPowerState { .. }));
        if !refused && !cause.is_unclear() {
            return Err(self.failed(cause));
        }
        // Not within this step's time: that may be what has passed.
        let state = self.machine.pool.client().vm().get_power_state(&self.machine.reference);
        let state = match state.timeout(SETTLED_WITHIN).await {
            Ok(state) => state,
            Err(error) if error.code() == Some("HANDLE_INVALID") => return Err(self.failed(error)),
            Err(_) => return Err(self.failed(cause)),
        };
        if state == *wanted {
            Ok(Done::Already)
        } else if refused {
            Err(self.in_state(&state))
        } else {
            Err(self.failed(cause))
        }
    }

    /// Waits until the mirror shows what is so. That it does not is no failure of what was done: it
    /// shows it later.
    pub(super) async fn settle(self, wanted: &VmPowerState) {
        let mirror = self.machine.pool.mirror();
        let shown = mirror.wait_for(&self.machine.reference, "its state", SETTLED_WITHIN, |vm| {
            vm.is_none_or(|vm| vm.power_state == *wanted).then_some(())
        });
        if let Err(error) = shown.await {
            debug!(vm = %self.machine.name, %error, "the mirror is behind");
        }
    }

    /// Waits until the mirror shows all that has happened.
    pub(super) async fn catch_up(self) -> Result<(), MachineError> {
        let caught_up = self.machine.pool.mirror().barrier(self.left()).await;
        caught_up.map_err(|source| self.failed(source))
    }
}

/// Whether something else goes on with the VM, or the pool is too busy.
fn is_busy(cause: &Cause) -> bool {
    cause.code().is_some_and(|code| BUSY.contains(&code))
}

/// Whether the connection broke before it was known whether the pool has heard.
fn is_cut(cause: &Cause) -> bool {
    matches!(cause, Cause::Call(xenapi::Error::Transport { .. }))
}
