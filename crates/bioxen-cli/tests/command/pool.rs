//! `bioxen pool`, against a simulated pool.

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xenapi_sim::Pool;

use crate::support::{Ended, command};

const PASSWORD: &str = "correct horse";

/// A pool with a certificate of its own, and a home in which nothing is configured yet.
struct Place {
    runtime: Runtime,
    pool: Option<Pool>,
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let pool = Pool::builder().password(PASSWORD).hosts(2).start();
        let pool = runtime.block_on(pool).unwrap();
        Self { runtime, pool: Some(pool), home: tempfile::tempdir().unwrap() }
    }

    fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("it has not been stopped")
    }

    fn run_with(&self, password: &str, arguments: &[&str]) -> Ended {
        let mut command = command(["pool"].iter().chain(arguments));
        command.env("BIOXEN_HOME", self.home.path()).env("LAB_PASSWORD", password);
        command.output().expect("the command can be started").into()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(PASSWORD, arguments)
    }

    fn add(&self, name: &str) -> Ended {
        let (url, fingerprint) = (self.pool().url(), self.pool().fingerprint().to_owned());
        let trust = ["--fingerprint", &fingerprint];
        self.run(&[&["add", name, &url, "--password", "env:LAB_PASSWORD"], &trust[..]].concat())
    }

    fn configuration(&self) -> String {
        std::fs::read_to_string(self.home.path().join("config/config.toml")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            self.runtime.block_on(pool.stop());
        }
    }
}

#[test]
fn an_unknown_certificate_is_shown_and_not_trusted_where_nobody_can_be_asked() {
    let place = Place::new();
    let url = place.pool().url();
    let ended = place.run(&["add", "lab", &url, "--password", "env:LAB_PASSWORD"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(5), ""), "{ended:?}");
    let fingerprint = place.pool().fingerprint().to_lowercase();
    assert!(ended.stderr.contains(&format!("--fingerprint {fingerprint}")), "{ended:?}");
    assert_eq!(place.configuration(), "");
}

#[test]
fn another_certificate_than_the_known_one_is_refused_with_both_fingerprints() {
    let place = Place::new();
    let (url, other) = (place.pool().url(), "00:".repeat(31) + "01");
    let arguments = ["add", "lab", &url, "--password", "env:LAB_PASSWORD", "--fingerprint", &other];
    let ended = place.run(&arguments);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let found = place.pool().fingerprint().to_lowercase();
    assert!(ended.stderr.contains(&found) && ended.stderr.contains(&other), "{ended:?}");
    assert_eq!(place.configuration(), "");
}

#[test]
fn a_pool_that_was_added_is_listed_shown_and_found_to_work() {
    let place = Place::new();
    let ended = place.add("lab");
    assert_eq!(ended, Ended::well("added pool `lab`: XCP-ng 8.3.0, 2 hosts\n"));
    assert!(!place.configuration().contains(PASSWORD));
    let listed = place.run(&["list", "--json"]).json();
    assert_eq!(listed[0]["name"], "lab");
    assert_eq!(listed[0]["password"], "env:LAB_PASSWORD");
    let shown = place.run(&["show", "--json"]).json();
    assert_eq!(shown["hosts"].as_array().map(Vec::len), Some(2));
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let outcomes = place.run(&["check", "lab", "--json"]).json();
    let passed = |step: &Value| step["outcome"] == "passed";
    assert!(outcomes.as_array().is_some_and(|steps| steps.iter().all(passed)), "{outcomes}");
}

#[test]
fn lists_are_arrays_of_objects_with_a_name() {
    let place = Place::new();
    place.add("lab");
    for list in ["hosts", "templates", "networks", "storage"] {
        let rows = place.run(&[list, "lab", "--json"]).json();
        let rows = rows.as_array().unwrap_or_else(|| panic!("{list}: {rows}"));
        assert!(!rows.is_empty() && rows.iter().all(|row| row["name"].is_string()), "{list}");
    }
    let templates = place.run(&["templates", "--json"]).json();
    let kinds = templates.as_array().into_iter().flatten().map(|template| &template["kind"]);
    let kinds: std::collections::BTreeSet<String> = kinds.map(ToString::to_string).collect();
    assert_eq!(kinds, ["\"installer\"".to_owned(), "\"ready\"".to_owned()].into());
}

#[test]
fn a_wrong_password_is_6_and_said_by_where_it_came_from() {
    let place = Place::new();
    place.add("lab");
    let ended = place.run_with("wrong", &["hosts"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(6), ""), "{ended:?}");
    let checked = place.run_with("wrong", &["check"]);
    assert_eq!(checked.code, Some(6), "{checked:?}");
    assert!(checked.stdout.contains("env:LAB_PASSWORD") && !checked.stdout.contains("wrong\n"));
}

#[test]
fn a_pool_that_is_away_is_5_and_its_settings_are_shown_all_the_same() {
    let mut place = Place::new();
    place.add("lab");
    let pool = place.pool.take().unwrap();
    place.runtime.block_on(pool.stop());
    let ended = place.run(&["show"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stdout.contains("env:LAB_PASSWORD"), "{ended:?}");
    assert!(ended.stderr.contains("bioxen pool check lab"), "{ended:?}");
}

#[test]
fn names_that_are_taken_or_not_there_have_exit_codes_of_their_own() {
    let place = Place::new();
    assert_eq!(place.run(&["hosts"]).code, Some(3), "no pool at all");
    place.add("lab");
    assert_eq!(place.add("lab").code, Some(4));
    assert_eq!(place.run(&["hosts", "nowhere"]).code, Some(3));
    assert_eq!(place.add("other").code, Some(0));
    let ended = place.run(&["hosts"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("`lab`, `other`"), "{ended:?}");
}

#[test]
fn a_pool_is_trusted_by_what_is_said_and_never_unseen() {
    let place = Place::new();
    let url = place.pool().url();
    place.run(&["add", "lab", &url, "--password", "env:LAB_PASSWORD", "--no-check"]);
    let ended = place.run(&["hosts"]);
    assert_eq!(ended.code, Some(5), "nothing says whether to trust it");
    assert!(ended.stderr.contains("bioxen pool trust lab"), "{ended:?}");
    let before = place.configuration();
    let ended = place.run(&["trust", "lab"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let fingerprint = place.pool().fingerprint().to_lowercase();
    assert!(ended.stderr.contains(&format!("--fingerprint {fingerprint}")), "{ended:?}");
    assert_eq!(place.configuration(), before);
    let ended = place.run(&["trust", "lab", "--fingerprint", &fingerprint]);
    let said = format!("pool `lab` is trusted by the fingerprint {fingerprint}\n");
    assert_eq!(ended, Ended::well(&said));
    assert_eq!(place.run(&["hosts"]).code, Some(0));
    assert_eq!(place.run(&["trust", "nowhere", "--fingerprint", &fingerprint]).code, Some(3));
}

#[test]
fn removing_asks_unless_it_is_told_not_to() {
    let place = Place::new();
    place.add("lab");
    assert_eq!(place.run(&["remove", "lab"]).code, Some(1), "nobody can be asked here");
    assert_eq!(place.run(&["remove", "lab", "--yes"]), Ended::well("removed pool `lab`\n"));
    assert_eq!(place.run(&["list", "--json"]).json(), Value::Array(Vec::new()));
}

#[test]
fn plain_http_to_another_machine_is_a_wrong_command_line() {
    let place = Place::new();
    let ended = place.run(&["add", "lab", "http://10.1.2.3", "--password", "env:LAB_PASSWORD"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let ended = place.run(&["add", "lab", "https://10.1.2.3", "--password", "hunter2"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("env:NAME"), "{ended:?}");
}
