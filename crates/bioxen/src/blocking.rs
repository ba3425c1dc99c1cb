//! The same verbs for programs without an async runtime.
//!
//! A [`Fleet`] of this module has a runtime of its own, on one thread. Its calls must not be made from
//! inside another async runtime.
//!
//! ```standalone_crate
//! use bioxen::{VmSpec, blocking::Fleet};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! bioxen::init();
//! let fleet = Fleet::new()?;
//! let vm = fleet.create(VmSpec::basic("analysis")?)?;
//! let run = vm.eval("('GATTACA'):reverse()")?.into_result()?;
//! assert_eq!(run.value().as_str(), Some("ACATTAG"));
//! # Ok(())
//! # }
//! ```

use std::io;
use std::sync::Arc;

use bioxen_core::backend::ShutdownError;
use bioxen_core::{InvalidPattern, Limit, Script, VmName, VmSpec, VmState};
use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::{
    CreateError, CreateGroupError, EvalError, FleetBuilder, FleetStats, NoSuchVm, RemoveError,
    Removed, Run, StartVmError, StopError, VmInfo,
};

/// All VMs of one program; see [`crate::Fleet`].
#[derive(Clone, Debug)]
pub struct Fleet {
    // Dropped first: ending the VMs needs the runtime.
    fleet: crate::Fleet,
    runtime: Arc<Runtime>,
}

/// A VM of a fleet; see [`crate::Vm`].
#[derive(Clone, Debug)]
pub struct Vm {
    vm: crate::Vm,
    runtime: Arc<Runtime>,
}

/// An attachment to a VM's interpreter; see [`crate::Session`].
#[derive(Clone, Debug)]
pub struct Session {
    session: crate::Session,
    runtime: Arc<Runtime>,
}

/// VMs that were made together; see [`crate::Group`].
#[derive(Clone, Debug)]
pub struct Group {
    group: crate::Group,
    runtime: Arc<Runtime>,
}

/// One result for each VM, by name.
pub type Results = Vec<(VmName, Result<Run, EvalError>)>;

impl Fleet {
    /// A fleet with the usual settings. Starts its runtime's thread and nothing else.
    pub fn new() -> io::Result<Self> {
        Self::from_builder(crate::Fleet::builder())
    }

    /// A fleet with settings of its own.
    pub fn from_builder(builder: FleetBuilder) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bioxen")
            .enable_all()
            .build()?;
        Ok(Self { fleet: builder.build(), runtime: Arc::new(runtime) })
    }

    fn vm_handle(&self, vm: crate::Vm) -> Vm {
        Vm { vm, runtime: Arc::clone(&self.runtime) }
    }

    /// See [`crate::Fleet::create`].
    pub fn create(&self, spec: VmSpec) -> Result<Vm, CreateError> {
        self.runtime.block_on(self.fleet.create(spec)).map(|vm| self.vm_handle(vm))
    }

    /// See [`crate::Fleet::vm`].
    pub fn vm(&self, name: &str) -> Result<Vm, NoSuchVm> {
        self.fleet.vm(name).map(|vm| self.vm_handle(vm))
    }

    /// See [`crate::Fleet::find_vm`].
    pub fn find_vm(&self, name: &str) -> Option<Vm> {
        self.fleet.find_vm(name).map(|vm| self.vm_handle(vm))
    }

    /// See [`crate::Fleet::vms`].
    pub fn vms(&self) -> Vec<Vm> {
        self.fleet.vms().into_iter().map(|vm| self.vm_handle(vm)).collect()
    }

    /// See [`crate::Fleet::remove`].
    pub fn remove(&self, name: &str) -> Result<(), RemoveError> {
        self.runtime.block_on(self.fleet.remove(name))
    }

    /// See [`crate::Fleet::create_group`].
    pub fn create_group(
        &self,
        name: &str,
        count: usize,
        spec: VmSpec,
    ) -> Result<Group, CreateGroupError> {
        let group = self.runtime.block_on(self.fleet.create_group(name, count, spec))?;
        Ok(Group { group, runtime: Arc::clone(&self.runtime) })
    }

    /// Runs the same code in every VM whose name matches a pattern, side by side, and waits for all.
    pub fn broadcast(
        &self,
        pattern: &str,
        code: impl Into<Bytes>,
    ) -> Result<Results, InvalidPattern> {
        let _entered = self.runtime.enter();
        let broadcast = self.fleet.broadcast(pattern, code)?;
        Ok(self.runtime.block_on(broadcast.wait()))
    }

    /// See [`crate::Fleet::status`].
    pub fn status(&self, pattern: &str) -> Result<Vec<VmInfo>, InvalidPattern> {
        self.fleet.status(pattern)
    }

    /// See [`crate::Fleet::remove_matching`].
    pub fn remove_matching(&self, pattern: &str) -> Result<Removed, InvalidPattern> {
        self.runtime.block_on(self.fleet.remove_matching(pattern))
    }

    /// See [`crate::Fleet::stats`].
    pub fn stats(&self) -> FleetStats {
        self.fleet.stats()
    }

    /// See [`crate::Fleet::shutdown`].
    pub fn shutdown(&self) -> Result<(), ShutdownError> {
        self.runtime.block_on(self.fleet.shutdown())
    }
}

impl Vm {
    /// Its name.
    pub fn name(&self) -> &VmName {
        self.vm.name()
    }

    /// See [`crate::Vm::eval`]; waits for the end.
    pub fn eval(&self, code: impl Into<Bytes>) -> Result<Run, EvalError> {
        self.runtime.block_on(self.vm.eval(code).into_future())
    }

    /// As [`eval`](Self::eval), in a Lua state of its own, which is gone when it ends.
    pub fn eval_fresh(&self, code: impl Into<Bytes>) -> Result<Run, EvalError> {
        self.runtime.block_on(self.vm.eval(code).fresh().into_future())
    }

    /// As [`eval`](Self::eval), for so long at most.
    pub fn eval_within(
        &self,
        code: impl Into<Bytes>,
        wall_time: std::time::Duration,
    ) -> Result<Run, EvalError> {
        let limit = Limit::Of(wall_time);
        self.runtime.block_on(self.vm.eval(code).wall_time(limit).into_future())
    }

    /// See [`crate::Vm::run`]; waits for the end.
    pub fn run(&self, script: Script) -> Result<Run, EvalError> {
        self.runtime.block_on(self.vm.run(script).into_future())
    }

    /// See [`crate::Vm::session`].
    pub fn session(&self) -> Session {
        Session { session: self.vm.session(), runtime: Arc::clone(&self.runtime) }
    }

    /// See [`crate::Vm::start`].
    pub fn start(&self) -> Result<(), StartVmError> {
        self.runtime.block_on(self.vm.start())
    }

    /// See [`crate::Vm::stop`].
    pub fn stop(&self) -> Result<(), StopError> {
        self.runtime.block_on(self.vm.stop())
    }

    /// See [`crate::Vm::status`].
    pub fn status(&self) -> VmState {
        self.vm.status()
    }

    /// See [`crate::Vm::info`].
    pub fn info(&self) -> VmInfo {
        self.vm.info()
    }
}

impl Session {
    /// See [`crate::Session::evaluate`].
    pub fn evaluate(&self, input: &str) -> Result<Run, EvalError> {
        self.runtime.block_on(self.session.evaluate(input))
    }
}

impl Group {
    /// Its VMs, in order.
    pub fn members(&self) -> Vec<Vm> {
        let handle = |vm: &crate::Vm| Vm { vm: vm.clone(), runtime: Arc::clone(&self.runtime) };
        self.group.members().iter().map(handle).collect()
    }

    /// Runs the same code in each of its VMs, side by side, and waits for all.
    pub fn broadcast(&self, code: impl Into<Bytes>) -> Results {
        let _entered = self.runtime.enter();
        self.runtime.block_on(self.group.broadcast(code).wait())
    }

    /// See [`crate::Group::status`].
    pub fn status(&self) -> Vec<VmInfo> {
        self.group.status()
    }

    /// See [`crate::Group::remove`].
    pub fn remove(self) -> Removed {
        self.runtime.block_on(self.group.remove())
    }
}
