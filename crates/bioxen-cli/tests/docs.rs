//! Every command in the documents is run, and does what they show.

use std::path::Path;

/// Documents with commands, by their path in the repository.
const DOCUMENTS: [&str; 11] = [
    "docs/tutorial/first-analysis.md",
    "docs/how-to/grant-access.md",
    "docs/how-to/set-limits.md",
    "docs/how-to/choose-an-interpreter.md",
    "docs/how-to/use-the-library.md",
    "docs/how-to/connect-to-a-pool.md",
    "docs/how-to/move-from-the-python-library.md",
    "docs/explanation/choosing-a-vm-type.md",
    "docs/reference/command.md",
    "docs/reference/configuration.md",
    "docs/reference/run-record.md",
];

/// Where the documents have a simulated pool.
const POOL: &str = "127.0.0.1:8087";
const PASSWORD: &str = "secret";

#[test]
fn the_commands_in_the_documents_do_what_they_show() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pool = xenapi_sim::Pool::builder().http().listen(POOL.parse().unwrap()).password(PASSWORD);
    let pool = runtime.block_on(pool.start()).unwrap();
    try_documents(&DOCUMENTS, |cases| {
        cases.env("XENAPI_SIM_PASSWORD", PASSWORD);
    });
    runtime.block_on(pool.stop());
}

/// This document has a home of its own: its pool has the name of the others'.
#[cfg(target_os = "linux")]
#[test]
fn the_simulated_pool_is_kept_as_the_document_shows() {
    try_documents(&["docs/how-to/simulate-a-pool.md"], |_| ());
}

/// Each of these keeps a pool of its own.
#[cfg(target_os = "linux")]
#[test]
fn vms_and_networks_of_a_pool_are_as_the_documents_show() {
    for document in ["README.md", "docs/how-to/run-vms-on-a-pool.md", "docs/how-to/networking.md"] {
        try_documents(&[document], |_| ());
    }
}

/// Ends a simulated pool that a document left in this home.
#[cfg(target_os = "linux")]
struct EndOfPool<'a>(&'a Path);

#[cfg(target_os = "linux")]
impl Drop for EndOfPool<'_> {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(env!("CARGO_BIN_EXE_bioxen"));
        stop.args(["sim", "stop"]).env("BIOXEN_HOME", self.0).stdout(std::process::Stdio::null());
        assert!(
            stop.status().is_ok_and(|status| status.success()),
            "a simulated pool may still run"
        );
    }
}

fn try_documents(documents: &[&str], prepare: impl FnOnce(&trycmd::TestCases)) {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    #[cfg(target_os = "linux")]
    let _end = EndOfPool(home.path());
    // The documents speak of files as they are seen from the repository's top directory.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = repository.canonicalize().expect("the package is two directories deep");
    std::env::set_current_dir(&repository).expect("it is there");
    let cases = trycmd::TestCases::new();
    for document in documents {
        cases.case(repository.join(document));
    }
    cases.env("BIOXEN_HOME", home.path().display().to_string());
    prepare(&cases);
    cases.default_bin_path(env!("CARGO_BIN_EXE_bioxen")).run();
}
