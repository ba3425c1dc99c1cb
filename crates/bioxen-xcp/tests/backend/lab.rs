//! A fleet with VMs in machines of a simulated pool of its own.

use std::sync::Arc;

use bioxen::{CreateError, Fleet, Running, Vm, VmSpec};
use bioxen_testkit::guest_worker_program;
use bioxen_xcp::making::WorkerSource;
use bioxen_xcp::{XcpngBackend, XcpngBuilder};
use xenapi::{Client, Ref, class};
use xenapi_sim::guest::{GuestFault, ProcessOptions};

use crate::support::{SimulatedPool, machines, nothing_is_left_of};

pub(crate) const ENDLESS: &str = "print('begun') while true do end";

pub(crate) struct Lab {
    pub(crate) pool: SimulatedPool,
    pub(crate) onlooker: Client,
    pub(crate) backend: Arc<XcpngBackend>,
    pub(crate) fleet: Fleet,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(None, |backend| backend).await
    }

    /// A pool whose guests have a fault, and a backend with settings of its own.
    pub(crate) async fn with(
        fault: Option<GuestFault>,
        settings: impl FnOnce(XcpngBuilder) -> XcpngBuilder,
    ) -> Self {
        let faults = fault.into_iter().collect();
        let pool = SimulatedPool::start(ProcessOptions { faults, ..Default::default() }).await;
        let onlooker = pool.onlooker().await;
        let worker = WorkerSource::File(guest_worker_program());
        let backend = Arc::new(settings(pool.backend().worker(worker)).build());
        let fleet = Fleet::builder().backend(Arc::clone(&backend) as _).standby(0).build();
        Self { pool, onlooker, backend, fleet }
    }

    pub(crate) fn spec(&self, name: &str) -> VmSpec {
        self.pool.spec(name)
    }

    pub(crate) async fn vm(&self, name: &str) -> Vm {
        self.fleet.create(self.spec(name)).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Why a VM cannot be made, with all causes. Nothing is left of it.
    pub(crate) async fn refused(&self, spec: VmSpec) -> (CreateError, String) {
        let error = self.fleet.create(spec).await.expect_err("it cannot be made");
        nothing_is_left_of(&self.onlooker, self.backend.fleet()).await;
        let told = chain(&error);
        (error, told)
    }

    /// The machine of the only VM.
    pub(crate) async fn machine(&self) -> Ref<class::Vm> {
        let machines = machines(&self.onlooker, self.backend.fleet()).await;
        let [(_, machine)] = &machines[..] else { panic!("{machines:?}") };
        machine.clone()
    }

    /// Ends all, and checks that nothing is left.
    pub(crate) async fn close(self) {
        self.fleet.shutdown().await.unwrap();
        nothing_is_left_of(&self.onlooker, self.backend.fleet()).await;
        self.pool.sim.stop().await;
    }
}

/// Starts code that does not end, and waits until it runs.
pub(crate) async fn begun(vm: &Vm) -> Running {
    let mut running = vm.eval(ENDLESS).start().await.unwrap();
    running.next_chunk().await.unwrap().expect("it has written");
    running
}

/// An error with all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
