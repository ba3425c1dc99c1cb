//! `bioxen vm copy`: files and directories to, from and between VMs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bioxen::VmName;
use bioxen_xcp::ssh::files::{FileError, Files};
use serde::Serialize;

use crate::failure::Failure;
use crate::progress::{self, Transfer};
use crate::registry::Registry;
use crate::signals::Signals;
use crate::{json, output, runtime, shown};

const AFTER_HELP: &str = "\
Examples:
  bioxen vm copy genome.fasta assembler:
  bioxen vm copy assembler:results/gc.tsv .
  bioxen vm copy scripts assembler:work/
  bioxen vm copy assembler:results annotator:input";

/// Copy files and directories to, from and between VMs
///
/// NAME:PATH is a path in a VM, from the home directory of its user unless it is absolute; any other is one
/// of this machine (write `./a:b` for a file with a colon in its name). Directories are copied with all
/// below them, but for links and devices. Into a directory that is there, a file keeps its name. A file takes
/// its place when it is whole.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// What is copied
    #[arg(value_name = "SOURCE")]
    from: Place,
    /// Where to
    #[arg(value_name = "TARGET")]
    to: Place,
    /// Give up on a guest that was not reached after this time
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A path, here or in a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There { vm: VmName, path: String },
}

impl FromStr for Place {
    type Err = bioxen::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((vm, path)) if !vm.is_empty() && !vm.contains('/') => {
                // The guest's user is at home where a connection begins.
                let path = path.strip_prefix("~/").unwrap_or(path);
                let path = if path == "~" { "" } else { path };
                Ok(Self::There { vm: VmName::new(vm)?, path: path.to_owned() })
            }
            _ => Ok(Self::Here(text.into())),
        }
    }
}

impl Place {
    /// What it is called where it is, unless it is a directory that has no name of its own.
    fn name(&self) -> Option<String> {
        match self {
            Self::Here(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            Self::There { path, .. } => {
                let name = path.trim_end_matches('/').rsplit('/').next()?;
                (!["", ".", ".."].contains(&name)).then(|| name.to_owned())
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Here(path) => shown::plain(&path.display().to_string()),
            Self::There { vm, path } => shown::plain(&format!("{vm}:{path}")),
        }
    }
}

#[derive(Serialize)]
struct Copied {
    from: String,
    to: String,
    bytes: u64,
}

/// Copies it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { from, to, .. } = arguments;
    let registry = Registry::open()?;
    let bytes = runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let mut transfer = progress::transfer(arguments.json);
        signals.or_stop(Box::pin(copy(arguments, &registry, &mut transfer))).await
    })?;
    let rendered = if arguments.json {
        json::render(&Copied { from: from.shown(), to: to.shown(), bytes })
    } else {
        let size = shown::size(bytes);
        format!("copied {size} from `{}` to `{}`\n", from.shown(), to.shown()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

async fn copy(
    arguments: &Arguments,
    registry: &Registry,
    transfer: &mut Transfer,
) -> Result<u64, Failure> {
    let (name, timeout) = (arguments.from.name(), arguments.timeout);
    match (&arguments.from, &arguments.to) {
        (Place::Here(_), Place::Here(_)) => Err(Failure::NoVmInCopy),
        (Place::Here(from), Place::There { vm, path }) => {
            in_guest(registry, vm, timeout, async |files| {
                let to = target_there(files, path, name.as_deref()).await?;
                files.upload_tree(from, &to, |bytes| transfer.at(bytes)).await
            })
            .await
        }
        (Place::There { vm, path }, Place::Here(to)) => {
            let to = target_here(to, name.as_deref())?;
            in_guest(registry, vm, timeout, async |files| {
                files.download_tree(&source_there(path), &to, |bytes| transfer.at(bytes)).await
            })
            .await
        }
        (Place::There { vm, path }, Place::There { vm: other, path: to }) => {
            let between = tempfile::tempdir().map_err(Failure::Temporary)?;
            let here = between.path().join("copied");
            in_guest(registry, vm, timeout, async |files| {
                files.download_tree(&source_there(path), &here, |bytes| transfer.at(bytes)).await
            })
            .await?;
            in_guest(registry, other, timeout, async |files| {
                let to = target_there(files, to, name.as_deref()).await?;
                files.upload_tree(&here, &to, |bytes| transfer.at(bytes)).await
            })
            .await
        }
    }
}

/// Does something with the files of a guest, and takes leave of it.
async fn in_guest(
    registry: &Registry,
    vm: &VmName,
    timeout: Duration,
    work: impl AsyncFnOnce(&Files) -> Result<u64, FileError>,
) -> Result<u64, Failure> {
    let vm = registry.reach(vm).await?;
    let outcome = async {
        let connection = vm.connection(timeout).await?;
        let files = connection.files().await.map_err(Failure::ssh)?;
        let outcome = work(&files).await.map_err(|error| Failure::Copy(Box::new(error)));
        connection.close().await;
        outcome
    };
    let outcome = outcome.await;
    vm.close().await;
    outcome
}

fn source_there(path: &str) -> String {
    if path.is_empty() { ".".to_owned() } else { path.to_owned() }
}

/// Where something of this name goes in a guest.
async fn target_there(files: &Files, path: &str, name: Option<&str>) -> Result<String, FileError> {
    let into = path.is_empty() || path.ends_with('/') || files.is_directory(path).await?;
    Ok(match name.filter(|_| into) {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{}/{name}", path.trim_end_matches('/')),
        None => source_there(path),
    })
}

/// Where something of this name goes here.
fn target_here(path: &Path, name: Option<&str>) -> Result<PathBuf, Failure> {
    let is_named_as_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_named_as_directory {
        std::fs::create_dir_all(path)
            .map_err(|source| Failure::Path { path: path.to_owned(), source })?;
    }
    Ok(match name.filter(|_| is_named_as_directory || path.is_dir()) {
        Some(name) => path.join(name),
        None => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(vm: &str, path: &str) -> Place {
        Place::There { vm: VmName::new(vm).unwrap(), path: path.into() }
    }

    #[test]
    fn a_path_in_a_vm_has_its_name_before_the_first_colon() {
        for (text, place) in [
            ("gc:a.txt", there("gc", "a.txt")),
            ("gc:", there("gc", "")),
            ("gc:~/a", there("gc", "a")),
            ("gc:/srv/a:b", there("gc", "/srv/a:b")),
            ("a.txt", Place::Here("a.txt".into())),
            ("./a:b", Place::Here("./a:b".into())),
            (":a", Place::Here(":a".into())),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        assert!("no vm:a".parse::<Place>().is_err());
    }

    #[test]
    fn what_goes_into_a_directory_keeps_its_name() {
        for (place, name) in [
            ("a/b.txt", Some("b.txt")),
            ("a/b/", Some("b")),
            ("..", None),
            ("gc:a/b.txt", Some("b.txt")),
            ("gc:a/b/", Some("b")),
            ("gc:", None),
            ("gc:.", None),
        ] {
            assert_eq!(place.parse::<Place>().unwrap().name().as_deref(), name, "{place}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(target_here(path, Some("a")).unwrap(), path.join("a"));
        assert_eq!(target_here(&path.join("new"), Some("a")).unwrap(), path.join("new"));
        assert_eq!(target_here(path, None).unwrap(), path);
    }
}
