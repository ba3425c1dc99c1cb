//! VMs that outlive a command: what is remembered of them, and how they are reached again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bioxen::{VmName, VmSpec};
use bioxen_core::{AddressRange, MachineSpec};
use bioxen_state::{Address, Controller, KnownBy, Network, NewVm, Source, State, StateError, Vm};
use bioxen_xcp::machine::MachineError;
use bioxen_xcp::making::{self, AddressSource, Entry, Journal, JournalError, Known};
use bioxen_xcp::plan::{Plan, PlanError, Wanted};
use bioxen_xcp::ssh::{ClientKey, Connection, Login};
use bioxen_xcp::tags::MakingLabel;
use bioxen_xcp::{Care, Configuration, ConnectedPool, Machine};
use xenapi::class;

use crate::configuration;
use crate::directories::Directories;
use crate::failure::Failure;

/// What this user's commands remember.
#[derive(Clone)]
pub(crate) struct Registry {
    state: Arc<State>,
}

impl Registry {
    /// Opens it; it is made the first time.
    pub(crate) fn open() -> Result<Self, Failure> {
        let directories = Directories::from_environment().ok_or(Failure::NoHome)?;
        let state = State::open(directories.state).map_err(Failure::State)?;
        Ok(Self { state: Arc::new(state) })
    }

    /// The state itself.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// This process as one that sees to VMs, until this is dropped.
    pub(crate) fn controller(&self) -> Result<Controller, Failure> {
        self.state.controller().map_err(Failure::State)
    }

    /// What is remembered of a VM.
    pub(crate) fn vm(&self, name: &VmName) -> Result<Vm, Failure> {
        self.state.vm(name).map_err(Failure::State)
    }

    /// Sees that a name is free.
    pub(crate) fn ensure_free(&self, name: &VmName) -> Result<(), Failure> {
        match self.state.find_vm(name).map_err(Failure::State)? {
            None => Ok(()),
            Some(vm) => Err(Failure::State(StateError::Duplicate {
                name: name.clone(),
                pool: vm.pool().to_owned(),
                phase: vm.phase(),
            })),
        }
    }

    /// The same plan with the addresses that it would be given now. Nothing is leased.
    pub(crate) fn with_addresses(&self, plan: Plan) -> Result<Plan, Failure> {
        let mut addresses = Vec::new();
        for mut wanted in plan.wanted() {
            let on = Network { pool: &wanted.pool, network: &wanted.network.uuid };
            let given = self.state.given_addresses(on).map_err(Failure::State)?;
            wanted.excluded.extend(given.into_iter().chain(addresses.iter().copied()));
            let Some(address) = wanted.lowest() else {
                let (vm, network, range) = (plan.vm.clone(), wanted.network.name, wanted.range);
                let full = PlanError::NoAddressFree { vm, network, range };
                return Err(Failure::Plan(Box::new(full)));
            };
            addresses.push(address);
        }
        Ok(plan.with_addresses(addresses))
    }

    /// Logs in to a pool by its name, or to the default one, as this installation.
    pub(crate) async fn connect(&self, pool: Option<&str>) -> Result<Arc<ConnectedPool>, Failure> {
        let settings = configuration::pool(pool)?;
        let owner = self.state.installation();
        ConnectedPool::open(&settings, owner, Care::default()).await.map_err(Failure::Pool)
    }

    /// Logs in to the pool of a VM that is remembered.
    pub(crate) async fn connect_to(&self, row: &Vm) -> Result<Arc<ConnectedPool>, Failure> {
        if !has_pool(&configuration::read()?, row) {
            let (vm, pool) = (row.name().clone(), row.pool().to_owned());
            return Err(Failure::UnknownPool { vm, pool });
        }
        self.connect(Some(row.pool())).await
    }

    /// A VM that is remembered, on its pool.
    pub(crate) async fn reach(&self, name: &VmName) -> Result<Remembered, Failure> {
        let row = self.vm(name)?;
        let pool = self.connect_to(&row).await?;
        let machine = machine_of(&pool, &row).map_err(Failure::machine)?;
        Ok(Remembered { row, pool, machine })
    }
}

/// Whether the pool of a VM is in the configuration still.
pub(crate) fn has_pool(configuration: &Configuration, row: &Vm) -> bool {
    configuration.find_pool(row.pool()).is_some()
}

/// The machine of a VM, by its uuid or by the name that it was being made under.
pub(crate) fn machine_of(pool: &Arc<ConnectedPool>, row: &Vm) -> Result<Machine, MachineError> {
    let wanted = row.uuid.as_deref().or(row.making_label()).unwrap_or_else(|| row.name().as_str());
    Machine::find(pool, wanted)
}

/// A VM that is remembered, on its pool.
pub(crate) struct Remembered {
    /// What is remembered of it.
    pub(crate) row: Vm,
    /// The pool.
    pub(crate) pool: Arc<ConnectedPool>,
    /// The machine there.
    pub(crate) machine: Machine,
}

impl Remembered {
    /// The order that it was made by, with Lua's settings at their defaults.
    pub(crate) fn spec(&self) -> VmSpec {
        let machine: MachineSpec = serde_json::from_str(&self.row.spec).unwrap_or_default();
        VmSpec::new(self.row.name().clone(), machine)
    }

    /// Its address, where that was chosen before it was made.
    pub(crate) fn fixed_address(&self) -> Option<IpAddr> {
        let address = self.row.address.filter(|address| address.known_by == KnownBy::Static);
        address.map(|address| address.ip)
    }

    /// Its address, where the pool need not know it: one that was chosen, or that its guest has called from.
    pub(crate) fn known_address(&self) -> Option<(IpAddr, AddressSource)> {
        let Address { ip, known_by } = self.row.address?;
        match known_by {
            KnownBy::Static => Some((ip, AddressSource::Static)),
            KnownBy::CallHome => Some((ip, AddressSource::CallHome)),
            KnownBy::GuestMetrics => None,
        }
    }

    /// How its guest is entered.
    pub(crate) fn entry(&self) -> Result<Entry, Failure> {
        let missing = || Failure::NoEntry { vm: self.row.name().clone() };
        let host_key = self.row.host_key.as_deref().ok_or_else(missing)?;
        let login = match &self.row.client_key {
            Some(key) => {
                let key = xenapi::Secret::from(key.expose().to_owned());
                Login::Key(ClientKey::from_openssh(&key).map_err(|_| missing())?)
            }
            // One that was adopted without a key is entered by the user's agent.
            None if self.row.adopted() => Login::Agent(None),
            None => return Err(missing()),
        };
        Ok(Entry {
            user: self.row.ssh_user.clone().ok_or_else(missing)?,
            port: self.row.ssh_port,
            host_key: host_key.parse().map_err(|_| missing())?,
            login,
        })
    }

    /// Where its guest is now; waits this long for it to tell.
    pub(crate) async fn address(&self, patience: Duration) -> Result<IpAddr, Failure> {
        match self.known_address() {
            Some((address, AddressSource::Static)) => Ok(address),
            Some((address, _)) => Ok(self.machine.told_address().unwrap_or(address)),
            None => self.machine.clone().within(patience).address().await.map_err(Failure::machine),
        }
    }

    /// Logs in to its guest; gives up after this time.
    pub(crate) async fn connection(&self, patience: Duration) -> Result<Connection, Failure> {
        let entry = self.entry()?;
        let began = Instant::now();
        let address = self.address(patience).await?;
        let left = patience.saturating_sub(began.elapsed());
        making::reach(&self.pool, address, &entry, left).await.map_err(Failure::ssh)
    }

    /// What is known of it, for finishing it.
    pub(crate) fn known(&self) -> Result<Known, Failure> {
        let making = self.row.making_label().and_then(MakingLabel::read);
        // One that was adopted was never made: nothing has this name.
        let never =
            MakingLabel { attempt: uuid::Uuid::nil(), owner: self.pool.owner(), fleet: None };
        Ok(Known {
            making: making.unwrap_or(never),
            uuid: self.row.uuid.clone(),
            plan: None,
            entry: Some(self.entry()?),
            address: self.known_address(),
            seed: None,
            ready: false,
        })
    }

    /// Logs out. What was done stays done.
    pub(crate) async fn close(&self) {
        close(&self.pool).await;
    }
}

/// A pool's own identity.
pub(crate) fn pool_uuid(pool: &ConnectedPool) -> String {
    let view = pool.mirror().view();
    let uuid = view.iter::<class::Pool>().next().map(|(_, pool)| pool.uuid.clone());
    uuid.unwrap_or_default()
}

/// Logs out. What was done stays done.
pub(crate) async fn close(pool: &ConnectedPool) {
    if let Err(error) = pool.close().await {
        tracing::debug!(%error, "could not log out");
    }
}

/// Notes what is known of a VM while it is made.
pub(crate) struct RegistryJournal {
    state: Arc<State>,
    controller: uuid::Uuid,
    pool: String,
    pool_uuid: String,
    spec: VmSpec,
}

impl RegistryJournal {
    pub(crate) fn new(
        registry: &Registry,
        controller: &Controller,
        pool: &ConnectedPool,
        spec: &VmSpec,
    ) -> Self {
        Self {
            state: Arc::clone(&registry.state),
            controller: controller.id(),
            pool: pool.name().to_string(),
            pool_uuid: pool_uuid(pool),
            spec: spec.clone(),
        }
    }

    fn begin(&self, known: &Known) -> NewVm {
        let machine = self.spec.machine().cloned().unwrap_or_default();
        let plan = known.plan.as_deref();
        let now = jiff::Timestamp::now();
        let lifetime = machine.lifetime.and_then(|time| jiff::SignedDuration::try_from(time).ok());
        NewVm {
            name: self.spec.name.clone(),
            pool: self.pool.clone(),
            pool_uuid: self.pool_uuid.clone(),
            source: Source::Template {
                name: plan.map(|plan| plan.template.name.clone()).unwrap_or_default(),
                uuid: plan.map(|plan| plan.template.uuid.clone()).unwrap_or_default(),
                making_label: known.making.to_string(),
            },
            created: now,
            expires: lifetime.and_then(|time| now.checked_add(time).ok()),
            controller: Some(self.controller),
            spec: serde_json::to_string(&machine).expect("an order has a form in JSON"),
        }
    }
}

#[async_trait]
impl Journal for RegistryJournal {
    async fn note(&self, known: &Known) -> Result<(), JournalError> {
        let (state, name) = (Arc::clone(&self.state), self.spec.name.clone());
        let begin = known.uuid.is_none().then(|| self.begin(known));
        let known = known.clone();
        let noting = tokio::task::spawn_blocking(move || match begin {
            Some(new) => state.begin(new).map(drop),
            None => note(&state, &name, &known),
        });
        let noted = noting.await.map_err(|error| JournalError(error.into()))?;
        noted.map_err(|error| JournalError(error.into()))
    }

    async fn lease(&self, vm: &VmName, wanted: &Wanted) -> Result<Option<IpAddr>, JournalError> {
        let (state, vm) = (Arc::clone(&self.state), vm.clone());
        lease(wanted, move |on, range, excluded| state.lease_address(on, range, excluded, &vm))
            .await
    }
}

/// Notes nothing of VMs that are not to outlive this command, and sees that nobody else is given their
/// addresses while it lives.
pub(crate) struct FleetJournal {
    pub(crate) state: Arc<State>,
    pub(crate) controller: Arc<Controller>,
}

#[async_trait]
impl Journal for FleetJournal {
    async fn note(&self, _: &Known) -> Result<(), JournalError> {
        Ok(())
    }

    async fn lease(&self, _: &VmName, wanted: &Wanted) -> Result<Option<IpAddr>, JournalError> {
        let (state, controller) = (Arc::clone(&self.state), Arc::clone(&self.controller));
        let hold = move |on: Network<'_>, range, excluded: &_| {
            state.hold_address(on, range, excluded, &controller)
        };
        lease(wanted, hold).await
    }
}

/// Asks the state for an address; `None` where none is free.
async fn lease(
    wanted: &Wanted,
    from: impl FnOnce(Network<'_>, AddressRange, &BTreeSet<IpAddr>) -> Result<IpAddr, StateError>
    + Send
    + 'static,
) -> Result<Option<IpAddr>, JournalError> {
    let wanted = wanted.clone();
    let leasing = tokio::task::spawn_blocking(move || {
        let on = Network { pool: &wanted.pool, network: &wanted.network.uuid };
        from(on, wanted.range, &wanted.excluded)
    });
    match leasing.await.map_err(|error| JournalError(error.into()))? {
        Ok(address) => Ok(Some(address)),
        Err(StateError::NoAddressFree { .. }) => Ok(None),
        Err(error) => Err(JournalError(error.into())),
    }
}

/// A key as it is kept.
pub(crate) fn secret(key: &ClientKey) -> bioxen_state::Secret {
    bioxen_state::Secret::from(key.to_openssh().expose().to_owned())
}

fn note(state: &State, name: &VmName, known: &Known) -> Result<(), StateError> {
    state.update(name, |vm| {
        vm.uuid.clone_from(&known.uuid);
        if let Some(plan) = &known.plan {
            vm.memory = Some(plan.memory);
            vm.vcpus = Some(plan.vcpus);
            vm.disk = plan.growth.as_ref().map(|growth| growth.to);
        }
        if let Some(entry) = &known.entry {
            vm.ssh_user = Some(entry.user.clone());
            vm.ssh_port = entry.port;
            vm.host_key = Some(entry.host_key.to_string());
            vm.client_key = entry.client_key().map(secret);
        }
        if let Some((ip, source)) = known.address {
            let known_by = match source {
                AddressSource::GuestMetrics => KnownBy::GuestMetrics,
                AddressSource::Static => KnownBy::Static,
                AddressSource::CallHome => KnownBy::CallHome,
            };
            vm.address = Some(Address { ip, known_by });
        }
        if let Some(seed) = &known.seed {
            vm.seed_digest = Some(seed.to_string());
        }
    })?;
    if known.ready {
        state.ready(name)?;
        state.release(name)?;
    }
    Ok(())
}

/// The pools' configuration, with the defaults that are in force put into an order.
pub(crate) fn complete(machine: MachineSpec) -> Result<(Configuration, MachineSpec), Failure> {
    let user = configuration::read()?;
    let settings = configuration::settings(&user, &bioxen_xcp::XcpngDefaults::default())?;
    let machine = settings.xcpng.complete(machine);
    Ok((user, machine))
}
