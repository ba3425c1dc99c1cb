//! `cargo xtask codegen`: what is generated from the data model.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use xenapi_model::Model;

use crate::codegen;
use crate::program::{program, root, run, target_dir};

/// Generates the client's types and messages from the Xen API's data model
///
/// Writes `crates/xenapi/src/generated/`, formatted. Files there that are no longer generated go.
#[derive(Args)]
pub(crate) struct Codegen {
    /// Write nothing, and fail when what is there is stale
    #[arg(long)]
    check: bool,
}

const PLACE: &str = "crates/xenapi/src/generated";

impl Codegen {
    pub(crate) fn run(self) -> Result<()> {
        let fresh = formatted()?;
        let place = root().join(PLACE);
        let stale = stale(&place, &fresh)?;
        if stale.is_empty() {
            eprintln!("{PLACE} is up to date");
            return Ok(());
        }
        if self.check {
            for path in &stale {
                eprintln!("stale: {PLACE}/{}", path.display());
            }
            bail!("{} generated files are stale; `cargo xtask codegen` writes them", stale.len());
        }
        write(&place, &stale, &fresh)?;
        eprintln!("wrote {} files below {PLACE}", stale.len());
        Ok(())
    }
}

/// Fails when what is there is not what would be generated.
pub(crate) fn check() -> Result<()> {
    Codegen { check: true }.run()
}

/// The generated files as rustfmt leaves them, by name.
fn formatted() -> Result<Vec<(PathBuf, String)>> {
    let place = target_dir().join("xtask-codegen");
    if place.exists() {
        fs::remove_dir_all(&place).context("could not empty the folder for generated code")?;
    }
    fs::create_dir_all(&place).context("could not make a folder for generated code")?;
    let files = codegen::files(Model::get());
    for (name, text) in &files {
        fs::write(place.join(name), text).with_context(|| format!("could not write `{name}`"))?;
    }
    // rustfmt follows the modules that `mod.rs` declares.
    let module = place.join("mod.rs");
    let rules = root().join("rustfmt.toml");
    run(program("rustfmt", &["--edition", "2024", "--config-path"]).arg(rules).arg(module))?;
    let read = |(name, _): (String, String)| {
        let text = fs::read_to_string(place.join(&name))
            .with_context(|| format!("could not read `{name}` back"))?;
        Ok((PathBuf::from(name), text))
    };
    files.into_iter().map(read).collect()
}

/// Names of the files that differ from what they should hold, and of those that should not be there.
fn stale(place: &Path, fresh: &[(PathBuf, String)]) -> Result<Vec<PathBuf>> {
    let differs = |(name, text): &&(PathBuf, String)| {
        fs::read_to_string(place.join(name)).ok().as_ref() != Some(text)
    };
    let mut stale: Vec<PathBuf> =
        fresh.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    if place.is_dir() {
        for entry in fs::read_dir(place).context("could not list what is generated")? {
            let name = PathBuf::from(entry?.file_name());
            if !fresh.iter().any(|(kept, _)| *kept == name) {
                stale.push(name);
            }
        }
    }
    Ok(stale)
}

fn write(place: &Path, stale: &[PathBuf], fresh: &[(PathBuf, String)]) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("could not make `{}`", place.display()))?;
    for name in stale {
        let path = place.join(name);
        match fresh.iter().find(|(fresh, _)| fresh == name) {
            Some((_, text)) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("could not write `{}`", path.display()))?;
    }
    Ok(())
}
