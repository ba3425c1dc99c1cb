//! `BioXen` as it is measured: a fleet with its runtime.

use anyhow::{Result, bail};
use bioxen::{Fleet, Run, Vm, VmName, VmSpec};
use tokio::runtime::{Builder, Runtime};

/// The runtimes that a program may have.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flavour {
    /// `multi_thread`, with the work in a spawned task.
    MultiThread,
    /// `current_thread`.
    CurrentThread,
}

impl Flavour {
    pub(crate) const ALL: [Self; 2] = [Self::MultiThread, Self::CurrentThread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MultiThread => "multi_thread",
            Self::CurrentThread => "current_thread",
        }
    }
}

/// A fleet on a runtime of its own.
pub(crate) struct Ours {
    // Dropped first: ending the VMs needs the runtime.
    pub(crate) fleet: Fleet,
    runtime: Runtime,
    flavour: Flavour,
}

impl Ours {
    pub(crate) fn new(flavour: Flavour, standby: usize) -> Result<Self> {
        let mut builder = match flavour {
            Flavour::MultiThread => Builder::new_multi_thread(),
            Flavour::CurrentThread => Builder::new_current_thread(),
        };
        let runtime = builder.enable_all().build()?;
        Ok(Self { fleet: Fleet::builder().standby(standby).build(), runtime, flavour })
    }

    /// Runs work as a program would: in a spawned task where there are several threads.
    pub(crate) fn block_on<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.flavour {
            Flavour::MultiThread => self.runtime.block_on(self.runtime.spawn(work))?,
            Flavour::CurrentThread => self.runtime.block_on(work),
        }
    }

    /// Makes one VM.
    pub(crate) fn create(&self, name: &str) -> Result<Vm> {
        let (fleet, spec) = (self.fleet.clone(), VmSpec::basic(name)?);
        self.block_on(async move { Ok(fleet.create(spec).await?) })
    }
}

/// The order for the VM with that number.
pub(crate) fn numbered(number: u32) -> VmSpec {
    let name = VmName::new(format!("vm_{number}")).expect("letters and digits are a valid name");
    VmSpec::new(name, bioxen::VmType::Basic)
}

/// Makes sure that a run did what it was to do, so that no failure is taken for speed.
pub(crate) fn expect_value(run: &Run, value: i64) -> Result<()> {
    if run.value().as_i64() != Some(value) {
        bail!("a run returned {} where {value} was expected: {:?}", run.value(), run.record.ending);
    }
    Ok(())
}
