//! All VMs of one program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bioxen_basic::{BasicBackend, WorkerProgram};
use bioxen_core::backend::{Backend, ShutdownError};
use bioxen_core::{
    Event, InvalidName, InvalidPattern, NamePattern, VmName, VmSpec, VmState, VmType,
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::events::{EventSender, Events};
use crate::group::{self, Broadcast, CreateGroupError, Group, Removed};
use crate::vm::{StartVmError, StopError, Vm, VmInfo, VmInner};
use crate::watchdog::Watchdog;

/// Makes VMs and keeps them by name. Clones are handles on the same fleet.
///
/// When the last handle is dropped all VMs are killed, with whatever runs in them, and nothing of
/// them is left. [`shutdown`](Self::shutdown) does the same and says what went wrong.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<FleetInner>,
}

pub(crate) struct FleetInner {
    vms: Mutex<BTreeMap<VmName, Slot>>,
    backends: BTreeMap<VmType, Arc<dyn Backend>>,
    events: EventSender,
    permits: Option<Arc<Semaphore>>,
    watchdog: Watchdog,
}

enum Slot {
    /// The name is taken by a VM that is being made.
    Creating,
    There(Vm),
}

/// Settings of a fleet.
#[derive(Clone)]
pub struct FleetBuilder {
    worker_program: WorkerProgram,
    standby: usize,
    most_running: Option<usize>,
    backends: BTreeMap<VmType, Arc<dyn Backend>>,
}

impl std::fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetBuilder")
            .field("worker_program", &self.worker_program)
            .field("standby", &self.standby)
            .field("most_running", &self.most_running)
            .field("backends", &self.backends.keys())
            .finish()
    }
}

impl FleetBuilder {
    /// Sets the program that workers come from, in place of the one that would be found.
    #[must_use]
    pub fn worker_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.worker_program = WorkerProgram::Path(path.into());
        self
    }

    /// Sets how many workers stand by, forked and held in, for VMs without grants. Default 4.
    ///
    /// They make creating such a VM a matter of microseconds, and cost about 100 KiB each.
    #[must_use]
    pub fn standby(mut self, workers: usize) -> Self {
        self.standby = workers;
        self
    }

    /// Sets how many runs may be in progress at once, over all VMs; the others wait. No bound by
    /// default.
    #[must_use]
    pub fn most_running(mut self, runs: usize) -> Self {
        self.most_running = Some(runs);
        self
    }

    /// Adds a place where VMs of another type live; for a type that is there already, in place of it.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backends.insert(backend.vm_type(), backend);
        self
    }

    /// The fleet. Starts nothing.
    pub fn build(self) -> Fleet {
        let mut backends = self.backends;
        backends
            .entry(VmType::Basic)
            .or_insert_with(|| Arc::new(BasicBackend::new(self.worker_program, self.standby)));
        let events = EventSender::new();
        for backend in backends.values() {
            let events = events.clone();
            backend.report_to(Arc::new(move |event| events.tell(|| event)));
        }
        let inner = FleetInner {
            vms: Mutex::default(),
            backends,
            events,
            watchdog: Watchdog::default(),
            permits: self.most_running.map(|most| Arc::new(Semaphore::new(most.max(1)))),
        };
        Fleet { inner: Arc::new(inner) }
    }
}

/// Why a VM could not be created. Nothing is left of it, and its name is free.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is one of that name.
    #[error("vm `{vm}` exists already")]
    Duplicate {
        /// The name.
        vm: VmName,
    },
    /// This program was built without that type.
    #[error(
        "vm `{vm}` cannot be of type `{vm_type}`: that is not built in; this program has {known}"
    )]
    NotBuiltIn {
        /// The VM's name.
        vm: VmName,
        /// The type that was asked for.
        vm_type: VmType,
        /// The types that are there.
        known: String,
    },
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartVmError),
}

impl CreateError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Duplicate { vm } => Some(format!("choose another name, or remove `{vm}` first")),
            Self::NotBuiltIn { .. } => Some("use `--vm-type basic`".into()),
            Self::Start(error) => error.hint(),
        }
    }
}

/// There is no VM of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no vm `{name}`; there are {there}")]
pub struct NoSuchVm {
    /// The name that was looked for.
    pub name: String,
    there: String,
}

/// Why a VM could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// There is none.
    #[error(transparent)]
    NoSuchVm(#[from] NoSuchVm),
    /// It would not end.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// What it lives in would not end.
    #[error("vm `{vm}` was stopped, but not removed")]
    Place {
        /// The VM.
        vm: VmName,
        /// What was left, and why.
        source: ShutdownError,
    },
}

/// How many there are of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetStats {
    /// All VMs.
    pub vms: usize,
    /// VMs by type.
    pub by_type: BTreeMap<VmType, usize>,
    /// VMs by state.
    pub by_state: BTreeMap<&'static str, usize>,
    /// Runs in progress or waiting for their VM.
    pub runs_in_progress: usize,
    /// Runs that have been started so far, in the VMs that are there.
    pub runs: u64,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Fleet {
    /// A fleet with the usual settings. Starts nothing.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a fleet.
    pub fn builder() -> FleetBuilder {
        FleetBuilder {
            worker_program: WorkerProgram::Find,
            standby: 4,
            most_running: None,
            backends: BTreeMap::new(),
        }
    }

    /// Creates a VM and starts it. It is there as a whole, under its name, or not at all.
    pub async fn create(&self, spec: VmSpec) -> Result<Vm, CreateError> {
        let (backends, vm_type) = (&self.inner.backends, spec.vm_type());
        if !backends.contains_key(&vm_type) {
            let known: Vec<_> = backends.keys().map(|vm_type| vm_type.name()).collect();
            return Err(CreateError::NotBuiltIn {
                vm: spec.name,
                vm_type,
                known: known.join(", "),
            });
        }
        let mut reserved = self.reserve(&spec.name)?;
        let events = self.inner.events.clone();
        let vm = Vm { inner: Arc::new(VmInner::new(spec, Arc::downgrade(&self.inner), events)) };
        vm.inner.start().await?;
        reserved.keep(vm.clone());
        let (name, backend) = (vm.name().clone(), vm.spec().vm_type());
        self.inner.events.tell(|| Event::VmCreated { vm: name, backend, at: Timestamp::now() });
        Ok(vm)
    }

    fn reserve(&self, name: &VmName) -> Result<Reserved<'_>, CreateError> {
        let mut vms = self.inner.lock();
        if vms.contains_key(name) {
            return Err(CreateError::Duplicate { vm: name.clone() });
        }
        vms.insert(name.clone(), Slot::Creating);
        Ok(Reserved { fleet: &self.inner, name: name.clone(), kept: false })
    }

    /// The VM of that name.
    pub fn vm(&self, name: &str) -> Result<Vm, NoSuchVm> {
        self.find_vm(name).ok_or_else(|| {
            let names: Vec<String> =
                self.vms().iter().map(|vm| format!("`{}`", vm.name())).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            NoSuchVm { name: name.to_owned(), there }
        })
    }

    /// The VM of that name, if there is one.
    pub fn find_vm(&self, name: &str) -> Option<Vm> {
        let name = VmName::new(name).ok()?;
        match self.inner.lock().get(&name) {
            Some(Slot::There(vm)) => Some(vm.clone()),
            Some(Slot::Creating) | None => None,
        }
    }

    /// All VMs, by name.
    pub fn vms(&self) -> Vec<Vm> {
        let there = |slot: &Slot| match slot {
            Slot::There(vm) => Some(vm.clone()),
            Slot::Creating => None,
        };
        self.inner.lock().values().filter_map(there).collect()
    }

    /// All VMs whose name matches a pattern such as `gc_*`.
    pub fn vms_matching(&self, pattern: &str) -> Result<Vec<Vm>, InvalidPattern> {
        let pattern: NamePattern = pattern.parse()?;
        Ok(self.vms().into_iter().filter(|vm| pattern.matches(vm.name())).collect())
    }

    /// Ends a VM, with whatever runs in it, and frees its name.
    pub async fn remove(&self, name: &str) -> Result<(), RemoveError> {
        let vm = self.vm(name)?;
        vm.inner.remove();
        vm.stop().await?;
        if let Some(backend) = self.inner.backend(vm.spec().vm_type()) {
            let removed = backend.remove(vm.name()).await;
            removed.map_err(|source| RemoveError::Place { vm: vm.name().clone(), source })?;
        }
        self.inner.lock().remove(vm.name());
        let name = vm.name().clone();
        self.inner.events.tell(|| Event::VmRemoved { vm: name, at: Timestamp::now() });
        Ok(())
    }

    /// Creates VMs `name_000`, `name_001`, … side by side: all of them, or none.
    ///
    /// The spec's own name is not used.
    pub async fn create_group(
        &self,
        name: &str,
        count: usize,
        spec: VmSpec,
    ) -> Result<Group, CreateGroupError> {
        group::create(self, name, count, spec).await
    }

    /// Starts to run the same code in every VM whose name matches a pattern, side by side.
    pub fn broadcast(
        &self,
        pattern: &str,
        code: impl Into<bytes::Bytes>,
    ) -> Result<Broadcast, InvalidPattern> {
        Ok(Broadcast::start(self.vms_matching(pattern)?, &code.into()))
    }

    /// What is known about every VM whose name matches a pattern.
    pub fn status(&self, pattern: &str) -> Result<Vec<VmInfo>, InvalidPattern> {
        Ok(self.vms_matching(pattern)?.iter().map(Vm::info).collect())
    }

    /// Removes every VM whose name matches a pattern; goes on when one cannot be.
    pub async fn remove_matching(&self, pattern: &str) -> Result<Removed, InvalidPattern> {
        let names = self.vms_matching(pattern)?.iter().map(|vm| vm.name().clone()).collect();
        Ok(group::remove(self, names).await)
    }

    /// Everything that happens in this fleet from now on.
    pub fn events(&self) -> Events {
        self.inner.events.listen()
    }

    /// How many there are of what.
    pub fn stats(&self) -> FleetStats {
        self.vms().iter().fold(FleetStats::default(), |mut stats, vm| {
            stats.vms += 1;
            *stats.by_type.entry(vm.spec().vm_type()).or_default() += 1;
            *stats.by_state.entry(VmState::name(&vm.status())).or_default() += 1;
            stats.runs_in_progress += vm.inner.running.load(Ordering::Relaxed);
            stats.runs += vm.inner.runs.load(Ordering::Relaxed);
            stats
        })
    }

    /// Ends all VMs, with whatever runs in them, and returns when they are gone. The fleet can be
    /// used again afterwards.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let vms = std::mem::take(&mut *self.inner.lock());
        for slot in vms.values() {
            if let Slot::There(vm) = slot {
                vm.inner.remove();
            }
        }
        let mut outcome = Ok(());
        for backend in self.inner.backends.values() {
            outcome = outcome.and(backend.shutdown().await);
        }
        drop(vms);
        outcome
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("stats", &self.stats()).finish()
    }
}

impl FleetInner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmName, Slot>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where VMs of a type live; there is such a place for each VM that was made.
    pub(crate) fn backend(&self, vm_type: VmType) -> Option<Arc<dyn Backend>> {
        self.backends.get(&vm_type).map(Arc::clone)
    }

    pub(crate) fn watchdog(&self) -> Watchdog {
        self.watchdog.clone()
    }

    /// Waits until one more run may be in progress.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permits = self.permits.clone()?;
        permits.acquire_owned().await.ok()
    }
}

impl Drop for FleetInner {
    fn drop(&mut self) {
        for slot in self.lock().values() {
            if let Slot::There(vm) = slot {
                vm.inner.remove();
            }
        }
    }
}

/// A name that is taken while its VM is being made, and free again if that fails.
struct Reserved<'a> {
    fleet: &'a FleetInner,
    name: VmName,
    kept: bool,
}

impl Reserved<'_> {
    fn keep(&mut self, vm: Vm) {
        self.fleet.lock().insert(self.name.clone(), Slot::There(vm));
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.fleet.lock().remove(&self.name);
        }
    }
}

impl From<InvalidName> for CreateGroupError {
    fn from(error: InvalidName) -> Self {
        Self::Name(error)
    }
}
