//! The program that workers come from, built from what is checked out.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The program `bioxen-worker` of this profile and target directory.
///
/// Cargo builds it with the tests of the command, but not with those of a library alone, so it is built
/// here when it is missing or older than its sources. `BIOXEN_WORKER` names another.
pub fn worker_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(find_or_build).clone()
}

fn find_or_build() -> PathBuf {
    if let Some(named) = env::var_os("BIOXEN_WORKER") {
        return named.into();
    }
    let directory = profile_directory();
    let program = directory.join("bioxen-worker");
    if !is_fresh(&program) {
        build(&directory);
    }
    assert!(program.is_file(), "`{}` was built and is not there", program.display());
    program
}

/// The worker that is put into guests, built static from what is checked out, beside this profile's
/// directory. `BIOXEN_GUEST_WORKER` names another.
///
/// # Panics
///
/// When it cannot be built.
pub fn guest_worker_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(find_or_build_for_guests).clone()
}

fn find_or_build_for_guests() -> PathBuf {
    if let Some(named) = env::var_os("BIOXEN_GUEST_WORKER") {
        return named.into();
    }
    let target = &format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let directory = profile_directory().with_file_name("guest-test");
    let program = directory.join(target).join("debug/bioxen-guest-worker");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // It is copied into every guest that a test makes.
    command.envs([("CARGO_PROFILE_DEV_OPT_LEVEL", "1"), ("CARGO_PROFILE_DEV_STRIP", "symbols")]);
    command.args([
        "build",
        "--quiet",
        "--package",
        "bioxen-worker",
        "--bin",
        "bioxen-guest-worker",
    ]);
    command.args(["--target", target, "--target-dir"]).arg(&directory);
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "building the worker for guests failed: {command:?}");
    program
}

/// `target/debug` for a test in `target/debug/deps`.
fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own program");
    let mut directory = test.parent().expect("a program is in a directory");
    while directory.ends_with("deps") || directory.ends_with("examples") {
        directory = directory.parent().expect("the profile's directory is above");
    }
    directory.to_owned()
}

fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).expect("this crate is two levels below the workspace").to_owned()
}

/// Whether a program is as new as the sources of the crates that the worker is made of.
fn is_fresh(program: &Path) -> bool {
    let Ok(built) = program.metadata().and_then(|metadata| metadata.modified()) else {
        return false;
    };
    let crates = workspace().join("crates");
    if !crates.is_dir() {
        // The tests were carried to another machine, and the program with them.
        return true;
    }
    let sources =
        ["bioxen-core", "bioxen-worker"].map(|name| newest(&crates.join(name).join("src")));
    sources.into_iter().flatten().all(|changed| changed <= built)
}

/// When the newest file below a directory was changed.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let changed = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest(&entry.path()),
        _ => entry.metadata().and_then(|metadata| metadata.modified()).ok(),
    };
    entries.filter_map(changed).max()
}

fn build(directory: &Path) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command.args(["build", "--quiet", "--package", "bioxen-cli", "--bin", "bioxen-worker"]);
    match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => drop(command.args(["--profile", profile])),
    }
    let parent = directory.parent().expect("the target directory is above the profile's");
    if parent.join("CACHEDIR.TAG").is_file() {
        command.arg("--target-dir").arg(parent);
    } else {
        // Built for a named target: `target/TRIPLE/debug`.
        let target = parent.file_name().expect("a target's name");
        command.arg("--target").arg(target);
        command.arg("--target-dir").arg(parent.parent().expect("the target directory"));
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "building `bioxen-worker` failed: {command:?}");
}
