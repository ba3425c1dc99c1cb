//! `cargo xtask guest-worker`: the worker that is put into guests.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::program::{cargo, output_of, program, run, target_dir};

/// What guests run. Any Linux of this processor does.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// More than this is not to be sent to every guest.
const LARGEST: u64 = 4 << 20;

/// Builds the worker for guests, which needs nothing of the guest but its kernel
///
/// Prints its path, its size in bytes and its SHA-256.
#[derive(Args)]
pub(crate) struct GuestWorker {}

impl GuestWorker {
    #[expect(clippy::unused_self, reason = "every command is run on its arguments")]
    pub(crate) fn run(self) -> Result<()> {
        let worker = build()?;
        let size = worker.metadata()?.len();
        let digest = output_of(program("sha256sum", &["--binary"]).arg(&worker))?;
        let digest = String::from_utf8_lossy(&digest);
        let digest = digest.split_whitespace().next().context("`sha256sum` said nothing")?;
        #[expect(clippy::print_stdout, reason = "it is the result")]
        {
            println!("{} {size} {digest}", worker.display());
        }
        ensure!(size <= LARGEST, "it has {size} bytes, and {LARGEST} are the most");
        Ok(())
    }
}

/// Builds it and puts it where it is found.
pub(super) fn build() -> Result<PathBuf> {
    let directory = target_dir().join("guest");
    let arguments = ["build", "--release", "--package", "bioxen-worker"];
    let mut command = cargo(&arguments);
    // The target is named so that the flag does not reach programs that run while building.
    command.args(["--bin", "bioxen-guest-worker", "--target", TARGET, "--target-dir"]);
    command.arg(&directory).env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(&mut command)?;
    let built = directory.join(TARGET).join("release/bioxen-guest-worker");
    let worker = directory.join("bioxen-worker");
    fs::copy(&built, &worker).with_context(|| format!("could not copy `{}`", built.display()))?;
    Ok(worker)
}
