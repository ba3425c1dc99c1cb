//! The fleet of one command: made for its VMs, and gone with all of them when it ends.

use std::process::ExitCode;
use std::sync::Arc;

use bioxen::{Fleet, Vm, VmName, VmSpec, VmType};
use bioxen_core::MachineSpec;
use bioxen_state::Controller;
use bioxen_xcp::XcpngBackend;

use crate::code::Code;
use crate::execution::Execution;
use crate::failure::Failure;
use crate::registry::{self, FleetJournal, Registry};
use crate::vm_options::LuaOptions;
use crate::{configuration, runtime};

/// A fleet, and what its VMs live in besides processes of this machine.
pub(crate) struct Place {
    pub(crate) fleet: Fleet,
    /// Where its VMs of type `xcpng` live, if it has any.
    pub(crate) machines: Option<Arc<XcpngBackend>>,
    /// Says that this process lives, while it does.
    _controller: Option<Arc<Controller>>,
}

/// A fleet in which nothing stands by: a command knows how many VMs it needs.
pub(crate) fn new() -> Fleet {
    Fleet::builder().standby(0).build()
}

/// A fleet for VMs of such an order.
pub(crate) fn of(spec: &VmSpec) -> Result<Place, Failure> {
    match spec.vm_type() {
        VmType::Basic => Ok(Place { fleet: new(), machines: None, _controller: None }),
        VmType::Xcpng => with_machines(&Registry::open()?),
    }
}

/// A fleet whose VMs may live on pools. What it makes there does not outlive it.
fn with_machines(registry: &Registry) -> Result<Place, Failure> {
    let controller = Arc::new(registry.controller()?);
    let (state, holder) = (Arc::clone(registry.state()), Arc::clone(&controller));
    let backend = XcpngBackend::builder(configuration::read()?)
        .owner(registry.state().installation())
        .fleet(controller.id())
        .journal(Arc::new(FleetJournal { state, controller: holder }));
    let backend = Arc::new(backend.build());
    let fleet = Fleet::builder().standby(0).backend(Arc::clone(&backend) as Arc<_>).build();
    Ok(Place { fleet, machines: Some(backend), _controller: Some(controller) })
}

/// Runs code in a VM that outlives this command.
pub(crate) fn perform_in(
    name: VmName,
    lua: &LuaOptions,
    code: Code,
    reads_input: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    runtime::block_on(async {
        let vm = registry.reach(&name).await?;
        let place = with_machines(&registry)?;
        if let Some(machines) = &place.machines {
            let (pool, machine) = (Arc::clone(&vm.pool), vm.machine.reference().clone());
            machines.attach(name.clone(), pool, machine, vm.entry()?, vm.known_address());
        }
        let spec = lua.spec(name, MachineSpec::default());
        let outcome = Execution { spec, code, reads_input, json, results: Vec::new() }
            .perform_in(&place)
            .await;
        shut_down(&place.fleet).await;
        registry::close(&vm.pool).await;
        outcome
    })
}

/// Makes a VM.
pub(crate) async fn create(fleet: &Fleet, spec: VmSpec) -> Result<Vm, Failure> {
    fleet.create(spec).await.map_err(Failure::Create)
}

/// Ends all VMs. What the command has done stays done even if they resist.
pub(crate) async fn shut_down(fleet: &Fleet) {
    if let Err(error) = fleet.shutdown().await {
        tracing::warn!(%error, "the vms were not cleaned up");
    }
}
