//! One VM: its life, and the code that runs in it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bioxen_core::backend::{Machine, StartError, Started};
use bioxen_core::protocol::Form;
use bioxen_core::{
    Digest, Event, Grants, Health, InterpreterFacts, Isolation, Limits, Mechanism, RunContext,
    Script, VmName, VmSpec, VmState, VmType,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::connection::{Connection, Queue};
use crate::evaluation::{Code, Evaluation};
use crate::events::EventSender;
use crate::fleet::FleetInner;
use crate::session::Session;

/// A VM of a fleet. Clones are handles on the same VM.
#[derive(Clone)]
pub struct Vm {
    pub(crate) inner: Arc<VmInner>,
}

pub(crate) struct VmInner {
    pub(crate) spec: VmSpec,
    pub(crate) fleet: Weak<FleetInner>,
    pub(crate) events: EventSender,
    life: Mutex<Life>,
    queue: Mutex<Arc<Queue>>,
    created: Timestamp,
    pub(crate) runs: AtomicU64,
    pub(crate) running: AtomicUsize,
    removed: AtomicBool,
}

enum Life {
    Stopped,
    Starting,
    Running { since: Timestamp, machine: Arc<dyn Machine>, context: Arc<RunContext> },
    Failed { at: Timestamp, reason: String },
}

/// What is known about a VM.
#[derive(Clone, Debug, Serialize)]
pub struct VmInfo {
    /// Its name.
    pub name: VmName,
    /// Its type.
    #[serde(rename = "type")]
    pub vm_type: VmType,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: VmState,
    /// When it was created.
    pub created: Timestamp,
    /// Its interpreter, once it has been started.
    pub interpreter: Option<InterpreterFacts>,
    /// What holds it in, while it runs.
    pub isolation: Option<Isolation>,
    /// What it may use.
    pub limits: Limits,
    /// What it may touch.
    pub grants: Grants,
    /// Its working directory, where one was ordered.
    pub working_directory: Option<PathBuf>,
    /// Runs that have been started in it.
    pub runs: u64,
    /// How well it is.
    #[serde(flatten)]
    pub health: Health,
}

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartVmError {
    /// It runs already, or is being started.
    #[error("vm `{vm}` is already {state}")]
    AlreadyRunning {
        /// The VM.
        vm: VmName,
        /// `running` or `starting`.
        state: &'static str,
    },
    /// It was removed, or its fleet is gone.
    #[error("vm `{vm}` has been removed")]
    Removed {
        /// The VM.
        vm: VmName,
    },
    /// The backend could not do it.
    #[error("could not start vm `{vm}`")]
    Start {
        /// The VM.
        vm: VmName,
        /// Why.
        source: StartError,
    },
}

impl StartVmError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning { .. } => {
                Some("stop it first to start with an empty state".into())
            }
            Self::Removed { .. } => Some("create a VM of that name again".into()),
            Self::Start { source, .. } => Some(source.hint()),
        }
    }
}

/// Why a VM could not be stopped.
#[derive(Debug, thiserror::Error)]
#[error("the worker of vm `{vm}` was killed and has not ended after {seconds} s")]
pub struct StopError {
    /// The VM.
    pub vm: VmName,
    /// How long was waited.
    pub seconds: u64,
}

/// How long a killed worker may take to be gone: freeing memory takes the system 0.1 s a gigabyte.
const GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

impl Vm {
    /// Its name.
    pub fn name(&self) -> &VmName {
        &self.inner.spec.name
    }

    /// The order that it was made from.
    pub fn spec(&self) -> &VmSpec {
        &self.inner.spec
    }

    /// Evaluates what a person would type: an expression, whose values are returned, or statements.
    ///
    /// Globals that the code sets stay for the next evaluation, unless it is asked to be
    /// [`fresh`](Evaluation::fresh). Nothing happens until the evaluation is awaited or started.
    pub fn eval(&self, code: impl Into<Bytes>) -> Evaluation {
        let code = Code {
            name: "=eval".into(),
            source: Ok(code.into()),
            form: Form::Input,
            may_be_incomplete: false,
        };
        Evaluation::new(self.clone(), code, false)
    }

    /// Runs a script in a Lua state of its own, which is gone when it ends.
    ///
    /// With [`keep_state`](Evaluation::keep_state) it runs in the VM's own state instead. Nothing
    /// happens until the evaluation is awaited or started.
    pub fn run(&self, script: Script) -> Evaluation {
        Evaluation::of_script(self.clone(), script)
    }

    /// Opens a session: input line by line, as in a terminal.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Starts a stopped or failed VM with an empty Lua state.
    pub async fn start(&self) -> Result<(), StartVmError> {
        self.inner.start().await?;
        let vm = self.name().clone();
        self.inner.events.tell(|| Event::VmStarted { vm, at: Timestamp::now() });
        Ok(())
    }

    /// Ends the VM's worker, with all that runs in it; the Lua state is lost. Stopping a stopped VM
    /// does nothing.
    pub async fn stop(&self) -> Result<(), StopError> {
        let machine = {
            let mut life = self.inner.lock();
            match std::mem::replace(&mut *life, Life::Stopped) {
                Life::Running { machine, .. } => machine,
                Life::Starting => {
                    *life = Life::Starting;
                    return Ok(());
                }
                Life::Stopped | Life::Failed { .. } => return Ok(()),
            }
        };
        // Whoever runs code in it notices, and need not for this to go on. It is to find the queue closed
        // when it does, since that is how it knows that the end was wanted.
        self.inner.queue().close();
        machine.kill();
        let vm = self.name().clone();
        if tokio::time::timeout(GONE_WITHIN, machine.ended()).await.is_err() {
            return Err(StopError { vm, seconds: GONE_WITHIN.as_secs() });
        }
        self.inner.events.tell(|| Event::VmStopped { vm, at: Timestamp::now() });
        Ok(())
    }

    /// Where it is in its life.
    pub fn status(&self) -> VmState {
        self.inner.status()
    }

    /// All that is known about it.
    pub fn info(&self) -> VmInfo {
        let inner = &*self.inner;
        let context = inner.context();
        VmInfo {
            name: inner.spec.name.clone(),
            vm_type: inner.spec.vm_type(),
            state: inner.status(),
            created: inner.created,
            interpreter: context.as_ref().map(|context| context.interpreter.clone()),
            isolation: context.as_ref().map(|context| context.isolation.clone()),
            limits: inner.spec.effective_limits(),
            grants: context.map_or_else(|| inner.spec.grants.clone(), |c| c.grants.clone()),
            working_directory: inner.spec.working_directory.clone(),
            runs: inner.runs.load(Ordering::Relaxed),
            health: self.health(),
        }
    }

    /// How well it is, at a glance.
    pub fn health(&self) -> Health {
        let (state, context) = (self.inner.status(), self.inner.context());
        match (state, context) {
            (VmState::Failed { reason, .. }, _) => Health::Error(vec![reason]),
            (VmState::Running { .. }, Some(context)) => {
                let optional =
                    [Mechanism::Cgroup, Mechanism::NetworkNamespace, Mechanism::IpcNamespace];
                let findings: Vec<String> = context
                    .isolation
                    .missing
                    .iter()
                    .filter(|(mechanism, _)| !optional.contains(mechanism))
                    .map(|(mechanism, reason)| format!("{mechanism} is not active: {reason}"))
                    .collect();
                if findings.is_empty() { Health::Healthy } else { Health::Degraded(findings) }
            }
            _ => Health::Healthy,
        }
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("name", self.name()).field("state", &self.status()).finish()
    }
}

impl VmInner {
    pub(crate) fn new(spec: VmSpec, fleet: Weak<FleetInner>, events: EventSender) -> Self {
        Self {
            spec,
            fleet,
            events,
            life: Mutex::new(Life::Stopped),
            queue: Mutex::new(Queue::closed()),
            created: Timestamp::now(),
            runs: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> VmState {
        match &*self.lock() {
            Life::Stopped => VmState::Stopped,
            Life::Starting => VmState::Starting,
            Life::Running { since, machine, .. } => VmState::Running {
                since: *since,
                process: machine.process(),
                busy: self.running.load(Ordering::Relaxed) > 0,
            },
            Life::Failed { at, reason } => VmState::Failed { at: *at, reason: reason.clone() },
        }
    }

    fn context(&self) -> Option<Arc<RunContext>> {
        match &*self.lock() {
            Life::Running { context, .. } => Some(Arc::clone(context)),
            _ => None,
        }
    }

    /// The queue in front of the present worker, or a closed one.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Ends the worker without waiting, for good.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        if let Life::Running { machine, .. } = &*self.lock() {
            machine.kill();
        }
    }

    pub(crate) async fn start(&self) -> Result<(), StartVmError> {
        let vm = || self.spec.name.clone();
        let fleet = self.fleet.upgrade().filter(|_| !self.is_removed());
        let Some(fleet) = fleet else { return Err(StartVmError::Removed { vm: vm() }) };
        match &mut *self.lock() {
            life @ (Life::Stopped | Life::Failed { .. }) => *life = Life::Starting,
            Life::Starting => {
                return Err(StartVmError::AlreadyRunning { vm: vm(), state: "starting" });
            }
            Life::Running { .. } => {
                return Err(StartVmError::AlreadyRunning { vm: vm(), state: "running" });
            }
        }
        // Whichever way this is left, the VM does not stay in `Starting`.
        let mut attempt = Attempt { vm: self, done: false };
        let vm_type = self.spec.vm_type();
        let backend = fleet.backend(vm_type).ok_or_else(|| StartVmError::Start {
            vm: vm(),
            source: StartError::Unsupported(format!("VMs of type `{vm_type}` are not built in")),
        })?;
        let started = backend
            .start(&self.spec)
            .await
            .map_err(|source| StartVmError::Start { vm: vm(), source })?;
        self.take_over(started);
        attempt.done = true;
        Ok(())
    }

    fn take_over(&self, started: Started) {
        let context = Arc::new(RunContext {
            vm: self.spec.name.clone(),
            backend: self.spec.vm_type(),
            environment: environment_digest(&started.interpreter),
            interpreter: started.interpreter,
            grants: started.grants,
            limits: self.spec.effective_limits(),
            isolation: started.isolation,
            machine: started.machine_facts,
        });
        let machine: Arc<dyn Machine> = started.machine.into();
        let connection = Connection::new(
            started.link,
            Arc::clone(&machine),
            Arc::clone(&context),
            started.environment,
            started.working_directory,
        );
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Queue::of(connection);
        let since = Timestamp::now();
        *self.lock() = Life::Running { since, machine: Arc::clone(&machine), context };
        if self.is_removed() {
            machine.kill();
        }
    }

    /// Notes that the worker has ended under a run.
    pub(crate) fn note_failure(&self, machine: &Arc<dyn Machine>, reason: &str) {
        {
            let mut life = self.lock();
            let Life::Running { machine: present, .. } = &*life else { return };
            if !Arc::ptr_eq(present, machine) {
                return;
            }
            *life = Life::Failed { at: Timestamp::now(), reason: reason.to_owned() };
        }
        if !self.is_removed() {
            self.events.tell(|| Event::VmFailed {
                vm: self.spec.name.clone(),
                reason: reason.to_owned(),
                at: Timestamp::now(),
            });
        }
    }
}

/// An attempt to start; unless it is done, the VM is stopped again.
struct Attempt<'a> {
    vm: &'a VmInner,
    done: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.done {
            *self.vm.lock() = Life::Stopped;
        }
    }
}

/// The digest of the Lua version and the locked packages, of which there are none yet.
fn environment_digest(interpreter: &InterpreterFacts) -> Digest {
    Digest::of(format!("lua {}\n", interpreter.version).as_bytes())
}
