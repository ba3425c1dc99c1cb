//! Several VMs at once: made together, told the same, removed together.

use bioxen_core::{InvalidName, VmName, VmSpec};
use bytes::Bytes;
use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::evaluation::{EvalError, Run};
use crate::fleet::{CreateError, Fleet, RemoveError};
use crate::vm::{Vm, VmInfo};

/// VMs `name_000`, `name_001`, … that were made together. Dropping it leaves them in their fleet.
#[derive(Clone, Debug)]
pub struct Group {
    fleet: Fleet,
    name: VmName,
    members: Vec<Vm>,
}

/// Why a group could not be created. None of its VMs is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateGroupError {
    /// The name, with a number behind it, names no VM.
    #[error(transparent)]
    Name(InvalidName),
    /// Some of its VMs could not be created.
    #[error("{failed} of {count} vms of group `{group}` could not be created")]
    Members {
        /// The group's name.
        group: VmName,
        /// How many there were to be.
        count: usize,
        /// How many failed.
        failed: usize,
        /// Why the first of them failed.
        source: Box<CreateError>,
    },
}

impl CreateGroupError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Name(_) => None,
            Self::Members { source, .. } => source.hint(),
        }
    }
}

/// What became of removing several VMs.
#[derive(Debug, Default)]
pub struct Removed {
    /// Those that are gone.
    pub removed: Vec<VmName>,
    /// Those that are not, and why.
    pub failed: Vec<(VmName, RemoveError)>,
}

/// The same code, running in several VMs. Dropping it cancels what still runs.
pub struct Broadcast {
    runs: Vec<(VmName, JoinHandle<Result<Run, EvalError>>)>,
}

pub(crate) async fn create(
    fleet: &Fleet,
    name: &str,
    count: usize,
    spec: VmSpec,
) -> Result<Group, CreateGroupError> {
    let group = VmName::new(name)?;
    let names =
        (0..count).map(|index| VmName::member(&group, index)).collect::<Result<Vec<_>, _>>()?;
    let created =
        join_all(names.into_iter().map(|name| fleet.create(spec.clone().named(name)))).await;
    let (members, errors): (Vec<_>, Vec<_>) = created.into_iter().partition(Result::is_ok);
    let members: Vec<Vm> = members.into_iter().flatten().collect();
    let failed = errors.len();
    if let Some(Err(first)) = errors.into_iter().next() {
        remove(fleet, members.iter().map(|vm| vm.name().clone()).collect()).await;
        return Err(CreateGroupError::Members { group, count, failed, source: Box::new(first) });
    }
    Ok(Group { fleet: fleet.clone(), name: group, members })
}

pub(crate) async fn remove(fleet: &Fleet, names: Vec<VmName>) -> Removed {
    let outcomes = join_all(names.iter().map(|name| fleet.remove(name.as_str()))).await;
    let mut removed = Removed::default();
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => removed.removed.push(name),
            Err(error) => removed.failed.push((name, error)),
        }
    }
    removed
}

impl Group {
    /// What its VMs' names begin with.
    pub fn name(&self) -> &VmName {
        &self.name
    }

    /// Its VMs, in order.
    pub fn members(&self) -> &[Vm] {
        &self.members
    }

    /// Starts to run the same code in each of its VMs, side by side.
    pub fn broadcast(&self, code: impl Into<Bytes>) -> Broadcast {
        Broadcast::start(self.members.clone(), &code.into())
    }

    /// What is known about each of its VMs.
    pub fn status(&self) -> Vec<VmInfo> {
        self.members.iter().map(Vm::info).collect()
    }

    /// Removes its VMs; goes on when one cannot be.
    pub async fn remove(self) -> Removed {
        remove(&self.fleet, self.members.iter().map(|vm| vm.name().clone()).collect()).await
    }
}

impl Broadcast {
    pub(crate) fn start(vms: Vec<Vm>, code: &Bytes) -> Self {
        let start = |vm: Vm| {
            let name = vm.name().clone();
            (name, tokio::spawn(vm.eval(code.clone()).into_future()))
        };
        Self { runs: vms.into_iter().map(start).collect() }
    }

    /// The VMs whose runs are over.
    pub fn finished(&self) -> Vec<&VmName> {
        self.runs.iter().filter(|(_, run)| run.is_finished()).map(|(name, _)| name).collect()
    }

    /// How many VMs run the code.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no VM matched.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Waits for all of them: one result for each VM, in the order of their names.
    pub async fn wait(mut self) -> Vec<(VmName, Result<Run, EvalError>)> {
        let mut results = Vec::with_capacity(self.runs.len());
        for (name, run) in &mut self.runs {
            let result = run.await.unwrap_or_else(|error| {
                Err(EvalError::NotRunning { vm: name.clone(), state: error.to_string() })
            });
            results.push((name.clone(), result));
        }
        results
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        for (_, run) in &self.runs {
            run.abort();
        }
    }
}
