//! Grants as a worker gets them: paths absolute, free of links, and there.

use std::io;
use std::path::{Path, PathBuf};

use bioxen_core::backend::StartError;
use bioxen_core::{Grants, VmSpec};

/// The grants of a spec with their paths resolved against the spec's working directory.
///
/// A file that may be written and is not there is made, empty: the kernel's rules hold for what
/// exists, and a rule for its directory would grant the file's neighbours too.
pub(crate) fn resolve(spec: &VmSpec, home: &Path) -> Result<Grants, StartError> {
    let refuse = |path: &Path, source| StartError::Path {
        path: path.display().to_string(),
        vm: spec.name.to_string(),
        source,
    };
    let mut grants = spec.grants.clone();
    grants.read = spec
        .grants
        .read
        .iter()
        .map(|path| home.join(path).canonicalize().map_err(|error| refuse(path, error)))
        .collect::<Result<_, _>>()?;
    grants.write = spec
        .grants
        .write
        .iter()
        .map(|path| resolve_or_create(&home.join(path)).map_err(|error| refuse(path, error)))
        .collect::<Result<_, _>>()?;
    Ok(grants)
}

fn resolve_or_create(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::File::create_new(path)?;
            path.canonicalize()
        }
        other => other,
    }
}

/// The directory that a VM's relative paths start from.
pub(crate) fn home(spec: &VmSpec) -> Result<PathBuf, StartError> {
    let directory = spec.working_directory.as_deref().unwrap_or(Path::new("."));
    directory.canonicalize().map_err(|source| StartError::Path {
        path: directory.display().to_string(),
        vm: spec.name.to_string(),
        source,
    })
}
