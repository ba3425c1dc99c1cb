//! What an order's paths and names mean where the worker is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bioxen_core::protocol::standalone::{Accepted, FoundProgram, Refusal};
use bioxen_core::protocol::zygote::Order;

/// Where interpreters are looked for besides the search path: an SSH server's may be short.
const USUAL_PLACES: &str = "/usr/local/bin:/usr/bin:/bin";

/// Makes the order's paths absolute and free of links, and finds its interpreter.
///
/// A file that may be written and is not there is made, empty: the kernel's rules hold for what exists,
/// and a rule for its directory would grant the file's neighbours too.
pub(super) fn resolve(order: &mut Order, search_path: &OsStr) -> Result<Accepted, Refusal> {
    let given = order.working_directory.as_deref().unwrap_or(Path::new("."));
    let home = given.canonicalize().map_err(|error| Refusal::path(given, &error))?;
    let each = |paths: &BTreeSet<PathBuf>, find: fn(&Path) -> io::Result<PathBuf>| {
        let find =
            |path: &PathBuf| find(&home.join(path)).map_err(|error| Refusal::path(path, &error));
        paths.iter().map(find).collect::<Result<BTreeSet<_>, _>>()
    };
    order.grants.read = each(&order.grants.read, Path::canonicalize)?;
    order.grants.write = each(&order.grants.write, find_or_create)?;
    order.working_directory = Some(home);
    let program = match &order.program {
        Some(program) => Some(find_program(program, search_path)?),
        None => None,
    };
    order.program = program.as_ref().map(|program| program.path.clone());
    Ok(super::accepted(order, program))
}

fn find_or_create(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::File::create_new(path)?;
            path.canonicalize()
        }
        other => other,
    }
}

/// The full path and the version of an interpreter.
fn find_program(program: &Path, search_path: &OsStr) -> Result<FoundProgram, Refusal> {
    let refuse =
        |reason: String| Refusal::Interpreter { program: program.display().to_string(), reason };
    let is_path = program.components().count() > 1;
    let places = std::env::split_paths(search_path).chain(std::env::split_paths(USUAL_PLACES));
    let found = if is_path {
        Some(program.to_owned())
    } else {
        places.map(|place| place.join(program)).find(|path| is_executable(path))
    };
    let found = found.filter(|path| is_executable(path));
    let found = found.ok_or_else(|| refuse("there is no such program".into()))?;
    let path = found.canonicalize().map_err(|error| refuse(error.to_string()))?;
    let version = crate::interpreter::ask_version(&path).map_err(refuse)?;
    Ok(FoundProgram { path, version })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
