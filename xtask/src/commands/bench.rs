//! `cargo xtask bench`: measures, and compares with other ways to run Lua.

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::guest_worker;
use crate::program::{cargo, run};
use crate::steps::{Outcome, Steps};

/// Runs the benchmarks, then the comparisons with other ways to run Lua, to speak to a pool, and
/// to make VMs there
#[derive(Args)]
pub(crate) struct Bench {
    /// Run only this step (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

#[derive(Clone, PartialEq, ValueEnum)]
enum Step {
    /// The benchmarks of the crates
    Benches,
    /// The comparison in benches/compare
    Compare,
    /// The comparison in benches/pool
    Pool,
    /// The comparison in benches/machines
    Machines,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let mut steps = Steps::new("bench", self.only);
        steps.run(&Step::Benches, "the benchmarks of the crates", || {
            run(&mut cargo(&["bench", "--workspace"]))?;
            Ok(Outcome::Passed)
        });
        steps.run(&Step::Compare, "the comparison with other ways to run Lua", || {
            run(&mut cargo(&["build", "--release", "--workspace", "--bins"]))?;
            run(&mut cargo(&["run", "--release", "--package", "compare"]))?;
            Ok(Outcome::Passed)
        });
        steps.run(&Step::Pool, "the comparison with other clients of the Xen API", || {
            run(&mut cargo(&["build", "--release", "--workspace", "--bins"]))?;
            run(&mut cargo(&["run", "--release", "--package", "compare-pool"]))?;
            Ok(Outcome::Passed)
        });
        steps.run(&Step::Machines, "the comparison with other ways to make VMs on a pool", || {
            guest_worker::build()?;
            run(&mut cargo(&["run", "--release", "--package", "compare-machines"]))?;
            Ok(Outcome::Passed)
        });
        steps.finish()
    }
}
