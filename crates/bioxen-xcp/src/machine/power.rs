//! Starting, stopping, suspending and pausing.

use std::time::Duration;

use serde::Serialize;
use xenapi::enums::VmPowerState;
use xenapi::{AsyncCall, Client, Ref, TaskError, class};

use super::asking::Step;
use super::{Cause, Done, Machine, MachineError, Refusal};
use crate::connected_pool::ConnectedPool;

/// How often the state may change under a start before that is given up.
const TRIES: usize = 4;

/// How a start came to a VM that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// It was off and booted.
    Booted,
    /// It was suspended and went on.
    Resumed,
    /// It was paused and went on.
    Unpaused,
    /// It ran already.
    Already,
}

/// How to stop a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How long the guest has to shut down before its power is cut; with none it is cut at once.
    pub grace: Duration,
}

impl Default for Stop {
    /// A minute's grace.
    fn default() -> Self {
        Self { grace: Duration::from_mins(1) }
    }
}

/// How a VM came to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// It was off, or somebody else stopped it meanwhile.
    Already,
    /// Its guest shut down.
    Cleanly,
    /// Its power was cut.
    Hard(WhyHard),
}

/// How a VM was rebooted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rebooted {
    /// By its guest.
    Cleanly,
    /// By cutting its power.
    Hard(WhyHard),
}

/// Why the power of a VM was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyHard {
    /// That was asked for.
    Asked,
    /// The guest has no tools that could be told, or they have not started yet.
    NoTools,
    /// The guest did not do it within the grace.
    GraceOver,
    /// The pool gave up waiting for the guest.
    NoAnswer,
    /// It was paused, so that the guest could do nothing.
    Paused,
    /// It was suspended, so that the guest could do nothing. What was in its memory is lost.
    Suspended,
}

impl Machine {
    /// Starts it, on this host or where the pool wants. One that is suspended or paused goes on where
    /// it was. Starting a VM that runs succeeds, unless that is on another host than the one named.
    pub async fn start(&self, host: Option<&str>) -> Result<Started, MachineError> {
        let step = self.step("start");
        let host = match host {
            Some(host) => {
                Some(self.pool.host(host).map_err(|reason| self.refused(step.name, reason))?)
            }
            None => None,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.start_once(step, host.as_ref()).await {
                // It is in another state than it was a moment ago.
                Err(MachineError::State { .. }) if tries < TRIES => {}
                outcome => return outcome,
            }
        }
    }

    async fn start_once(
        &self,
        step: Step<'_>,
        host: Option<&Ref<class::Host>>,
    ) -> Result<Started, MachineError> {
        let vm = &self.reference;
        let (started, done) = match step.state().await? {
            VmPowerState::Running => (Started::Already, Done::Already),
            VmPowerState::Halted => (Started::Booted, self.boot(step, host).await?),
            VmPowerState::Suspended => {
                let done = self.go_on(step, |client| match host {
                    Some(host) => client.vm().resume_on(vm, host, false, false),
                    None => client.vm().resume(vm, false, false),
                });
                (Started::Resumed, done.await?)
            }
            VmPowerState::Paused => {
                let done = self.go_on(step, |client| client.vm().unpause(vm));
                (Started::Unpaused, done.await?)
            }
            state @ VmPowerState::Unknown(_) => return Err(step.in_state(&state)),
        };
        self.check_place(step, host).await?;
        Ok(if done == Done::Now { started } else { Started::Already })
    }

    /// Refuses to say that it was started on a host when it runs on another.
    async fn check_place(
        &self,
        step: Step<'_>,
        wanted: Option<&Ref<class::Host>>,
    ) -> Result<(), MachineError> {
        let Some(wanted) = wanted else { return Ok(()) };
        let runs_on = step.call(|client| client.vm().get_resident_on(&self.reference)).await?;
        if runs_on == *wanted {
            return Ok(());
        }
        Err(self.refused(step.name, Refusal::OtherHost { host: self.pool.host_name(&runs_on) }))
    }

    async fn boot(
        &self,
        step: Step<'_>,
        host: Option<&Ref<class::Host>>,
    ) -> Result<Done, MachineError> {
        let vm = &self.reference;
        let outcome = self
            .go_on(step, |client| match host {
                Some(host) => client.vm().start_on(vm, host, false, false),
                None => client.vm().start(vm, false, false),
            })
            .await;
        match outcome {
            Err(error) if error.code() == Some("NO_HOSTS_AVAILABLE") => {
                Err(self.why_no_host(step).await)
            }
            outcome => outcome,
        }
    }

    async fn go_on(
        &self,
        step: Step<'_>,
        call: impl Fn(&Client) -> AsyncCall<()>,
    ) -> Result<Done, MachineError> {
        let _turn = step.turn().await?;
        step.change(&VmPowerState::Running, call).await
    }

    /// What each host says to it: the pool only says that none takes it.
    async fn why_no_host(&self, step: Step<'_>) -> MachineError {
        let mut hosts = Vec::new();
        for (host, record) in self.pool.mirror().snapshot::<class::Host>() {
            let assert = self.pool.client().vm().assert_can_boot_here(&self.reference, &host);
            let reason = match assert.timeout(step.left()).await {
                Ok(()) => "it would take it now".into(),
                Err(error) => match error.failure() {
                    Some(failure) => failure.to_string(),
                    None => error.to_string(),
                },
            };
            hosts.push((record.name_label.clone(), reason));
        }
        hosts.sort();
        MachineError::NoHost { vm: self.name.clone(), step: step.name, hosts }
    }

    /// Stops it: its guest shuts down, or else its power is cut when the grace is over, at once if the
    /// guest cannot be told. Stopping a VM that is off succeeds.
    pub async fn stop(&self, how: Stop) -> Result<Stopped, MachineError> {
        let step = self.step_beyond("stop", how.grace);
        let state = step.state().await?;
        if state == VmPowerState::Halted {
            return Ok(Stopped::Already);
        }
        let _turn = step.turn().await?;
        let why = match state {
            VmPowerState::Halted => return Ok(Stopped::Already),
            VmPowerState::Unknown(_) => return Err(step.in_state(&state)),
            VmPowerState::Paused => WhyHard::Paused,
            VmPowerState::Suspended => WhyHard::Suspended,
            VmPowerState::Running if how.grace.is_zero() => WhyHard::Asked,
            VmPowerState::Running => match self.shut_down(step, how.grace).await? {
                Ok(stopped) => return Ok(stopped),
                Err(why) => why,
            },
        };
        Ok(match self.cut_power(step).await? {
            Done::Now => Stopped::Hard(why),
            // Whoever was asked to do it cleanly has done so in the last moment, or somebody else did.
            Done::Already => Stopped::Already,
        })
    }

    /// Has its guest shut down, or tells why its power must be cut.
    async fn shut_down(
        &self,
        step: Step<'_>,
        grace: Duration,
    ) -> Result<Result<Stopped, WhyHard>, MachineError> {
        let asked = step.ask_guest(grace, |client| client.vm().clean_shutdown(&self.reference));
        let stopped = match asked.await {
            Ok(()) => Stopped::Cleanly,
            Err(cause) => {
                if let Some(why) = why_hard(&cause) {
                    return Ok(Err(why));
                }
                step.despite(cause, &VmPowerState::Halted).await?;
                Stopped::Already
            }
        };
        step.settle(&VmPowerState::Halted).await;
        Ok(Ok(stopped))
    }

    pub(super) async fn cut_power(&self, step: Step<'_>) -> Result<Done, MachineError> {
        step.change(&VmPowerState::Halted, |client| client.vm().hard_shutdown(&self.reference))
            .await
    }

    /// Reboots it: by its guest, or else hard when the grace is over, at once if the guest cannot be
    /// told. It must be running or paused.
    pub async fn reboot(&self, grace: Duration) -> Result<Rebooted, MachineError> {
        let step = self.step_beyond("reboot", grace);
        let _turn = step.turn().await?;
        let why = match step.state().await? {
            state @ (VmPowerState::Halted | VmPowerState::Suspended | VmPowerState::Unknown(_)) => {
                return Err(step.in_state(&state));
            }
            VmPowerState::Paused => WhyHard::Paused,
            VmPowerState::Running if grace.is_zero() => WhyHard::Asked,
            VmPowerState::Running => {
                let asked =
                    step.ask_guest(grace, |client| client.vm().clean_reboot(&self.reference));
                match asked.await {
                    Ok(()) => return Ok(Rebooted::Cleanly),
                    Err(cause) => why_hard(&cause).ok_or_else(|| step.failed(cause))?,
                }
            }
        };
        let hard = step.run(|client| client.vm().hard_reboot(&self.reference)).await;
        hard.map_err(|cause| step.failed(cause))?;
        step.settle(&VmPowerState::Running).await;
        Ok(Rebooted::Hard(why))
    }

    /// Suspends it: its memory goes to disk, and it leaves its host.
    pub async fn suspend(&self) -> Result<Done, MachineError> {
        self.switch("suspend", &VmPowerState::Running, &VmPowerState::Suspended, |client, vm| {
            client.vm().suspend(vm)
        })
        .await
    }

    /// Lets it go on after it was suspended.
    pub async fn resume(&self) -> Result<Done, MachineError> {
        self.switch("resume", &VmPowerState::Suspended, &VmPowerState::Running, |client, vm| {
            client.vm().resume(vm, false, false)
        })
        .await
    }

    /// Lets it stand still on its host.
    pub async fn pause(&self) -> Result<Done, MachineError> {
        self.switch("pause", &VmPowerState::Running, &VmPowerState::Paused, |client, vm| {
            client.vm().pause(vm)
        })
        .await
    }

    /// Lets it go on after it was paused.
    pub async fn unpause(&self) -> Result<Done, MachineError> {
        self.switch("unpause", &VmPowerState::Paused, &VmPowerState::Running, |client, vm| {
            client.vm().unpause(vm)
        })
        .await
    }

    async fn switch(
        &self,
        name: &'static str,
        from: &VmPowerState,
        to: &VmPowerState,
        call: impl Fn(&Client, &Ref<class::Vm>) -> AsyncCall<()>,
    ) -> Result<Done, MachineError> {
        let step = self.step(name);
        let state = step.state().await?;
        if state == *to {
            return Ok(Done::Already);
        }
        if state != *from {
            return Err(step.in_state(&state));
        }
        let _turn = step.turn().await?;
        step.change(to, |client| call(client, &self.reference)).await
    }
}

/// Why what was asked of a guest has to be done without it; `None` where the failure says nothing of
/// the kind.
fn why_hard(cause: &Cause) -> Option<WhyHard> {
    // The pool itself may be too busy to say within the grace that it has begun.
    if let Cause::Task(TaskError::Timeout { .. }) | Cause::Call(xenapi::Error::Timeout { .. }) =
        cause
    {
        return Some(WhyHard::GraceOver);
    }
    match cause.code()? {
        code if code.starts_with("VM_LACKS_FEATURE") => Some(WhyHard::NoTools),
        "VM_MISSING_PV_DRIVERS" => Some(WhyHard::NoTools),
        // The last means that it was busy until the grace was over.
        "VM_SHUTDOWN_TIMEOUT"
        | "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT"
        | "OTHER_OPERATION_IN_PROGRESS" => Some(WhyHard::NoAnswer),
        _ => None,
    }
}

impl ConnectedPool {
    /// The host of this uuid, name or address.
    pub(crate) fn host(&self, wanted: &str) -> Result<Ref<class::Host>, Refusal> {
        let hosts = self.mirror().snapshot::<class::Host>();
        if let Some((host, _)) = hosts.iter().find(|(_, host)| host.uuid == wanted) {
            return Ok(host.clone());
        }
        let mut found = hosts.iter().filter(|(_, host)| {
            [&host.name_label, &host.address, &host.hostname]
                .into_iter()
                .any(|said| said.eq_ignore_ascii_case(wanted))
        });
        match (found.next(), found.next()) {
            (Some((host, _)), None) => Ok(host.clone()),
            (Some(_), Some(_)) => Err(Refusal::AmbiguousHost { host: wanted.into() }),
            (None, _) => {
                let names = hosts.iter().map(|(_, host)| host.name_label.as_str());
                Err(Refusal::NoSuchHost { host: wanted.into(), near: super::near(names, wanted) })
            }
        }
    }

    pub(crate) fn host_name(&self, host: &Ref<class::Host>) -> String {
        self.mirror().get(host).map_or_else(|| host.to_string(), |host| host.name_label.clone())
    }
}

#[cfg(test)]
mod tests {
    use xenapi::Failure;

    use super::*;

    #[test]
    fn power_is_cut_only_for_what_the_guest_could_not_do() {
        let failed = |code: &str| {
            let source = Failure::new(code, vec![]);
            Cause::Task(TaskError::Failed { task: "VM.clean_shutdown".into(), source })
        };
        for (cause, why) in [
            (failed("VM_LACKS_FEATURE"), Some(WhyHard::NoTools)),
            (failed("VM_LACKS_FEATURE_SHUTDOWN"), Some(WhyHard::NoTools)),
            (failed("VM_MISSING_PV_DRIVERS"), Some(WhyHard::NoTools)),
            (failed("VM_SHUTDOWN_TIMEOUT"), Some(WhyHard::NoAnswer)),
            (failed("OPERATION_BLOCKED"), None),
            (failed("VM_BAD_POWER_STATE"), None),
            (TaskError::Cancelled { task: "x".into() }.into(), None),
            (
                TaskError::Timeout { task: "x".into(), after: Duration::ZERO }.into(),
                Some(WhyHard::GraceOver),
            ),
        ] {
            assert_eq!(why_hard(&cause), why, "{cause:?}");
        }
    }
}
