//! Every command in the documents is run, and does what they show.

use std::path::Path;

/// Documents with commands, by their path in the repository.
const DOCUMENTS: [&str; 11] = [
    "README.md",
    "docs/tutorial/first-analysis.md",
    "docs/how-to/grant-access.md",
    "docs/how-to/set-limits.md",
    "docs/how-to/choose-an-interpreter.md",
    "docs/how-to/use-the-library.md",
    "docs/how-to/connect-to-a-pool.md",
    "docs/how-to/move-from-the-python-library.md",
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
    let home = tempfile::tempdir().unwrap();
    // The documents speak of files as they are seen from the repository's top directory.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    std::env::set_current_dir(&repository).unwrap();
    let cases = trycmd::TestCases::new();
    for document in DOCUMENTS {
        cases.case(repository.join(document));
    }
    cases.env("BIOXEN_HOME", home.path().display().to_string());
    cases.env("XENAPI_SIM_PASSWORD", PASSWORD);
    cases.default_bin_path(env!("CARGO_BIN_EXE_bioxen")).run();
    runtime.block_on(pool.stop());
}
