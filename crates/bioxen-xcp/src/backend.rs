//! VMs of type `xcpng` for a fleet.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bioxen_core::backend::{Backend, Report, ShutdownError, StartError, Started};
use bioxen_core::{Digest, MachineFacts, VmName, VmSpec, VmType};
use futures::future::join_all;
use tokio::sync::OnceCell;
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::mirror::View;
use xenapi::{Ref, class};

use crate::configuration::Configuration;
use crate::connected_pool::{Care, ConnectedPool};
use crate::machine::{Machine, MachineError};
use crate::making::{
    self, AddressSource, Chain, Entry, GuestLua, Journal, MakeOrder, NoJournal, WorkerSource,
    address_of, told_or,
};
use crate::plan::{Deadlines, StepKind};
use crate::pool::{PoolError, PoolName, PoolSettings};
use crate::ssh::Connection;

/// How long a guest that was there before may take to be entered again: it may be starting.
const REACHED_WITHIN: Duration = Duration::from_mins(3);

/// How long the pool may take to tell what has happened.
const CAUGHT_UP_WITHIN: Duration = Duration::from_mins(1);

/// How long a guest that was restarted may take to tell its address.
const ADDRESS_WITHIN: Duration = Duration::from_mins(5);

/// Makes VMs in virtual machines of XCP-ng pools.
///
/// There is one session per pool, made when the first VM needs it. A machine is made when its VM is
/// first started, and deleted when that is removed or the fleet is shut down; one that was
/// [attached](Self::attach) is left as it is.
///
/// When it is dropped without a shutdown, deleting is begun if a runtime is there, but nobody waits for
/// it: what is left carries the [tags](crate::tags) of its fleet.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use bioxen_core::VmSpec;
/// use bioxen_xcp::{Configuration, XcpngBackend};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let configuration = Configuration::read("/home/ada/.config/bioxen/config.toml")?;
/// let backend = Arc::new(XcpngBackend::builder(configuration).build());
/// let fleet = bioxen::Fleet::builder().backend(backend).build();
/// let spec = VmSpec::xcpng("assembler")?.template("debian-12-cloud").vcpus(4);
/// let vm = fleet.create(spec).await?;
/// println!("{:?}", vm.eval("return _VERSION").await?.record.values);
/// fleet.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct XcpngBackend {
    settings: XcpngBuilder,
    fleet: Uuid,
    pools: Mutex<HashMap<PoolName, Arc<OnceCell<Arc<ConnectedPool>>>>>,
    machines: Mutex<BTreeMap<VmName, Arc<Held>>>,
    report: OnceLock<Report>,
    /// Our worker for guests, once one was needed.
    worker: OnceCell<WorkerSource>,
}

/// Settings of an [`XcpngBackend`].
#[derive(Clone)]
#[must_use]
pub struct XcpngBuilder {
    configuration: Configuration,
    owner: Option<Uuid>,
    fleet: Option<Uuid>,
    worker: WorkerSource,
    care: Care,
    journal: Arc<dyn Journal>,
    deadlines: Deadlines,
}

/// A machine that a VM lives in.
struct Held {
    pool: Arc<ConnectedPool>,
    vm: Ref<class::Vm>,
    entry: Entry,
    /// Its address and how it became known, where that may count later.
    known: Option<(IpAddr, AddressSource)>,
    /// The template and the digest of the seed disk that it was made from.
    origin: Option<(String, Option<Digest>)>,
    /// The attempt that made it; it stays when its VM is removed where that is another controller's.
    making: Option<Uuid>,
    reached: tokio::sync::Mutex<Option<Reached>>,
}

/// A connection to a guest, and where it leads.
#[derive(Clone)]
struct Reached {
    connection: Connection,
    address: IpAddr,
    source: AddressSource,
}

impl XcpngBuilder {
    /// Sets the installation that owns what is made; one of its own by default.
    pub fn owner(mut self, owner: Uuid) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Sets the id of this controller, which machines carry that are not to outlive it; a new one by
    /// default.
    pub fn fleet(mut self, fleet: Uuid) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Sets where our worker for guests comes from.
    pub fn worker(mut self, worker: WorkerSource) -> Self {
        self.worker = worker;
        self
    }

    /// Sets how much is asked of a pool at once.
    pub fn care(mut self, care: Care) -> Self {
        self.care = care;
        self
    }

    /// Sets how long a step of making a machine may take, in place of its
    /// [usual deadline](StepKind::deadline).
    pub fn deadline(mut self, step: StepKind, limit: Duration) -> Self {
        self.deadlines.set(step, limit);
        self
    }

    /// Sets where what is known of machines is noted; nowhere by default.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = journal;
        self
    }

    /// The backend. Connects to nothing yet.
    pub fn build(self) -> XcpngBackend {
        XcpngBackend {
            fleet: self.fleet.unwrap_or_else(Uuid::now_v7),
            settings: self,
            pools: Mutex::default(),
            machines: Mutex::default(),
            report: OnceLock::new(),
            worker: OnceCell::new(),
        }
    }
}

impl XcpngBackend {
    /// Settings for a backend with the pools of a configuration.
    pub fn builder(configuration: Configuration) -> XcpngBuilder {
        XcpngBuilder {
            configuration,
            owner: None,
            fleet: None,
            worker: WorkerSource::Find,
            care: Care::default(),
            journal: Arc::new(NoJournal),
            deadlines: Deadlines::default(),
        }
    }

    /// The id that machines carry which are not to outlive this controller.
    pub fn fleet(&self) -> Uuid {
        self.fleet
    }

    /// The pool of that name, or the only one that there is; connects the first time.
    pub async fn pool(&self, name: Option<&str>) -> Result<Arc<ConnectedPool>, PoolError> {
        let settings = self.pool_settings(name)?;
        let cell = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pools.entry(settings.name.clone()).or_default())
        };
        let owner = self.settings.owner.unwrap_or(self.fleet);
        let open = || ConnectedPool::open(settings, owner, self.settings.care);
        cell.get_or_try_init(open).await.map(Arc::clone)
    }

    fn pool_settings(&self, name: Option<&str>) -> Result<&PoolSettings, PoolError> {
        let configuration = &self.settings.configuration;
        let mut pools = configuration.pools();
        match (name, pools.next(), pools.next()) {
            (Some(name), ..) => Ok(configuration.pool(name)?),
            (None, Some(only), None) => Ok(only),
            (None, ..) => {
                let names = configuration.pools().map(|pool| pool.name.to_string());
                Err(PoolError::Which { there: names.collect() })
            }
        }
    }

    /// Lets a VM of this name live in a machine that is there already. It is not deleted with the VM.
    /// Its address is what the guest tells the pool, unless one was chosen for it, or the guest has called
    /// from one and tells none.
    pub fn attach(
        &self,
        name: VmName,
        pool: Arc<ConnectedPool>,
        vm: Ref<class::Vm>,
        entry: Entry,
        known: Option<(IpAddr, AddressSource)>,
    ) {
        let reached = tokio::sync::Mutex::default();
        let held = Held { pool, vm, entry, known, origin: None, making: None, reached };
        self.lock().insert(name, Arc::new(held));
    }

    /// The connection to the guest of a VM, if it has been started.
    pub async fn connection(&self, name: &VmName) -> Option<Connection> {
        let held = self.lock().get(name).cloned()?;
        let reached = held.reached.lock().await;
        let connection = reached.as_ref().map(|reached| reached.connection.clone());
        connection.filter(|connection| !connection.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmName, Arc<Held>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Report {
        self.report.get().cloned().unwrap_or_else(|| Arc::new(|_| {}))
    }

    /// Our worker for guests, read and digested once for all of them.
    async fn worker(&self) -> WorkerSource {
        let read = self.worker.get_or_try_init(|| self.settings.worker.read()).await;
        // Where it cannot be read, whoever needs it finds that out and says so.
        read.unwrap_or(&self.settings.worker).clone()
    }

    async fn make(&self, spec: &VmSpec) -> Result<Started, StartError> {
        let vm = spec.name.to_string();
        let wanted = spec.machine().and_then(|machine| machine.pool.clone());
        let pool = self.pool(wanted.as_deref()).await.map_err(|error| {
            let hint = error.hint().unwrap_or_else(|| "`bioxen pool list` lists the pools".into());
            StartError::Machine { vm: vm.clone(), hint, source: error.into() }
        })?;
        let order = MakeOrder {
            pool: Arc::clone(&pool),
            spec: spec.clone(),
            fleet: Some(self.fleet),
            run: None,
            worker: self.worker().await,
            journal: Arc::clone(&self.settings.journal),
            deadlines: self.settings.deadlines.clone(),
            report: self.report(),
        };
        let made = making::make(order).await.map_err(|error| StartError::Machine {
            vm: vm.clone(),
            hint: error.hint(),
            source: error.into(),
        })?;
        let making::Known { making, entry, address, plan, seed, .. } = made.known;
        let (Some(entry), Some((address, source))) = (entry, address) else {
            unreachable!("Lua was reached by them");
        };
        let reached = Reached { connection: made.connection, address, source };
        let held = Held {
            pool,
            vm: made.vm,
            entry,
            known: Some((address, source)),
            origin: plan.map(|plan| (plan.template.name.clone(), seed)),
            making: Some(making.attempt),
            reached: tokio::sync::Mutex::new(Some(reached.clone())),
        };
        let facts = held.facts(&reached);
        self.lock().insert(spec.name.clone(), Arc::new(held));
        Ok(started(made.lua, facts))
    }

    async fn start_again(&self, spec: &VmSpec, held: &Held) -> Result<Started, StartError> {
        let failed = |hint: String, source: Box<dyn std::error::Error + Send + Sync>| {
            StartError::Machine { vm: spec.name.to_string(), hint, source }
        };
        let mut reached = held.reached.lock().await;
        let there = reached.take().filter(|reached| !reached.connection.is_closed());
        let present = if let Some(present) = there {
            present
        } else {
            // Whatever cut the connection may not have been told yet.
            held.pool.mirror().barrier(CAUGHT_UP_WITHIN).await.map_err(|error| {
                failed("find out what the pool says with `bioxen pool check`".into(), error.into())
            })?;
            held.switch_on().await.map_err(|error| {
                let hint = error.hint().unwrap_or_else(|| "start it on its pool".into());
                failed(hint, error.into())
            })?;
            let (address, source) = held.address().await.map_err(|error| {
                let hint = "see that it runs, and that its guest tools do".to_owned();
                failed(hint, error.into())
            })?;
            let connection = making::reach(&held.pool, address, &held.entry, REACHED_WITHIN)
                .await
                .map_err(|error| failed(error.hint(), error.into()))?;
            Reached { connection, address, source }
        };
        let lua = making::start_lua(&present.connection, spec, &self.worker().await).await;
        let facts = held.facts(&present);
        *reached = Some(present);
        match lua {
            Ok(lua) => Ok(started(lua, facts)),
            Err(making::LuaError::Start(error)) => Err(error),
            Err(error) => Err(failed(error.hint(), error.into())),
        }
    }
}

impl Held {
    /// Starts it where it stands still.
    async fn switch_on(&self) -> Result<(), MachineError> {
        let record = self.pool.mirror().get(&self.vm);
        let Some(record) = record.filter(|vm| vm.power_state != VmPowerState::Running) else {
            return Ok(());
        };
        Machine::find(&self.pool, &record.uuid)?.start(None).await?;
        Ok(())
    }

    /// Where it is now: it may have been restarted since.
    async fn address(&self) -> Result<(IpAddr, AddressSource), xenapi::mirror::WaitError> {
        match self.known {
            Some(chosen @ (_, AddressSource::Static)) => return Ok(chosen),
            Some(called @ (_, AddressSource::CallHome)) => {
                return Ok(told_or(&self.pool.mirror().view(), &self.vm, called));
            }
            Some((_, AddressSource::GuestMetrics)) | None => {}
        }
        let told = |view: &View<'_>| address_of(view, &self.vm);
        let told = self.pool.mirror().wait_until("its address", ADDRESS_WITHIN, told).await?;
        Ok((told, AddressSource::GuestMetrics))
    }

    fn facts(&self, reached: &Reached) -> MachineFacts {
        let view = self.pool.mirror().view();
        let record = view.get(&self.vm);
        let host = record.and_then(|record| view.get(&record.resident_on));
        MachineFacts {
            pool: self.pool.name().to_string(),
            uuid: record.map(|record| record.uuid.clone()).unwrap_or_default(),
            host: host.map(|host| host.name_label.clone()),
            template: self.origin.as_ref().map(|(template, _)| template.clone()),
            address: reached.address.to_string(),
            address_from: reached.source.name(),
            host_key: self.entry.host_key.fingerprint().to_string(),
            seed: self.origin.as_ref().and_then(|(_, seed)| *seed),
        }
    }

    async fn remove(&self, name: &VmName) -> Result<(), MachineError> {
        if let Some(reached) = self.reached.lock().await.take() {
            reached.connection.close().await;
        }
        let Some(making) = self.making else { return Ok(()) };
        Machine::known(&self.pool, &self.vm, name.as_str()).delete().await?;
        self.pool.take_back(making);
        Ok(())
    }
}

fn started(lua: GuestLua, machine: MachineFacts) -> Started {
    Started {
        link: Box::new(lua.link),
        machine: Box::new(lua.machine),
        interpreter: lua.interpreter,
        isolation: lua.isolation,
        grants: lua.grants,
        environment: lua.environment,
        working_directory: lua.working_directory,
        machine_facts: Some(machine),
    }
}

#[async_trait]
impl Backend for XcpngBackend {
    fn vm_type(&self) -> VmType {
        VmType::Xcpng
    }

    async fn start(&self, spec: &VmSpec) -> Result<Started, StartError> {
        let held = self.lock().get(&spec.name).cloned();
        match held {
            Some(held) => self.start_again(spec, &held).await,
            None => self.make(spec).await,
        }
    }

    async fn remove(&self, vm: &VmName) -> Result<(), ShutdownError> {
        let Some(held) = self.lock().get(vm).cloned() else { return Ok(()) };
        held.remove(vm).await.map_err(|error| ShutdownError {
            left: format!("the machine of vm `{vm}`"),
            source: Some(error.into()),
        })?;
        self.lock().remove(vm);
        Ok(())
    }

    fn report_to(&self, report: Report) {
        // The first one that is told stays.
        let _ = self.report.set(report);
    }

    /// Deletes the machines that were made, and logs out.
    async fn shutdown(&self) -> Result<(), ShutdownError> {
        let machines = std::mem::take(&mut *self.lock());
        let removing = machines.iter().map(async |(name, held)| (name, held.remove(name).await));
        let mut left = Vec::new();
        for (name, removed) in join_all(removing).await {
            if let Err(error) = removed {
                left.push(format!("the machine of vm `{name}` ({})", Chain(&error)));
            }
        }
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        for pool in pools.values().filter_map(|pool| pool.get()) {
            pool.settled().await;
            if let Err(error) = pool.close().await {
                // The server ends the session by itself in a day.
                tracing::debug!(error = %Chain(&error), "did not log out");
            }
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(ShutdownError { left: left.join(", "), source: None })
        }
    }
}

impl Drop for XcpngBackend {
    fn drop(&mut self) {
        let machines = std::mem::take(&mut *self.lock());
        let made = machines.into_iter().filter(|(_, held)| held.making.is_some());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for (name, held) in made {
            runtime.spawn(async move {
                let _busy = held.pool.busy();
                if let Err(error) = held.remove(&name).await {
                    tracing::warn!(vm = %name, error = %Chain(&error), "its machine was left");
                }
            });
        }
    }
}

impl fmt::Debug for XcpngBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines: Vec<_> = self.lock().keys().cloned().collect();
        f.debug_struct("XcpngBackend").field("machines", &machines).finish_non_exhaustive()
    }
}
