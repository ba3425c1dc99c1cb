//! `bioxen config`, and how a project's file and the environment go into it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ended, command};

/// A password that must not be shown.
const PASSWORD: &str = "correct horse 7";

/// A home in which nothing is configured yet, and a working directory.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self { directory }
    }

    fn home(&self, path: &str) -> PathBuf {
        self.directory.path().join("home").join(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join("work").join(name), text).unwrap();
    }

    fn configure(&self, text: &str) {
        fs::create_dir_all(self.home("config")).unwrap();
        fs::write(self.home("config/config.toml"), text).unwrap();
    }

    fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut command = command(arguments);
        command.current_dir(self.directory.path().join("work"));
        command.env("BIOXEN_HOME", self.home("")).envs(variables.iter().copied());
        let ended: Ended = command.output().expect("the command can be started").into();
        assert!(!ended.stdout.contains(PASSWORD) && !ended.stderr.contains(PASSWORD), "{ended:?}");
        ended
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(&[], arguments)
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.home("config/config.toml")).unwrap_or_default()
    }
}

fn old() -> String {
    json!({
        "xcp_host": "xcp-01.example", "xcp_username": "ada", "xcp_password": PASSWORD,
        "template_name": "Debian 12", "vm_config": {"memory": "2GB", "vcpus": 2},
        "verify_ssl": false, "vm_password": PASSWORD, "colour": PASSWORD,
    })
    .to_string()
}

fn fate<'a>(imported: &'a Value, key: &str) -> &'a Value {
    let keys = imported["keys"].as_array().into_iter().flatten();
    let mut of_it = keys.filter(|finding| finding["key"] == key);
    of_it.next().unwrap_or_else(|| panic!("{key} has no fate: {imported}"))
}

#[test]
fn an_old_configuration_is_taken_over_and_each_key_told() {
    let place = Place::new();
    place.write("xcpng_config.json", &old());
    let ended = place.run(&["config", "import", "xcpng_config.json", "--pool", "lab", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let imported = ended.json();
    assert_eq!(imported["pools"], json!(["lab"]));
    assert_eq!(fate(&imported, "xcp_host")["to"], "pools.lab.addresses");
    assert_eq!(fate(&imported, "vm_config.memory")["value"], "2GiB");
    assert_eq!(fate(&imported, "xcp_password")["fate"], "moved");
    assert_eq!(fate(&imported, "verify_ssl")["fate"], "dropped");
    assert_eq!(fate(&imported, "colour")["fate"], "unknown");
    assert!(ended.stderr.contains("bioxen pool trust lab"), "{ended:?}");
    assert!(ended.stderr.contains("`xcpng_config.json` still holds a password"), "{ended:?}");
    let secret = place.home("config/secrets/lab");
    assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{PASSWORD}\n"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secret).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = place.configuration();
    assert!(text.contains(&format!("password = \"file:{}\"", secret.display())), "{text}");
    assert!(text.contains("[defaults.xcpng]\npool = \"lab\"\n"), "{text}");
    let listed = place.run(&["pool", "list", "--json"]).json();
    assert_eq!((&listed[0]["user"], &listed[0]["fingerprint"]), (&json!("ada"), &Value::Null));
    let again = place.run(&["config", "import", "xcpng_config.json", "--pool", "lab"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.ends_with("was not changed: there is nothing new\n"), "{again:?}");
    assert_eq!(place.configuration(), text);
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    let place = Place::new();
    place.write("old.json", &old());
    let tried = place.run(&["config", "import", "old.json", "--dry-run", "--json"]).json();
    assert!(!place.home("").exists());
    let done = place.run(&["config", "import", "old.json", "--json"]).json();
    assert_eq!((&tried["keys"], &tried["pools"]), (&done["keys"], &done["pools"]));
    assert_eq!((&tried["dry_run"], &done["dry_run"]), (&json!(true), &json!(false)));
}

#[test]
fn a_password_that_is_elsewhere_stays_there() {
    let place = Place::new();
    place.write(".env", &format!("XCP_HOST=10.0.0.5\nXCP_PASSWORD='{PASSWORD}'\n"));
    let ended = place.run(&["config", "import", ".env", "--password", "env:LAB_PASSWORD"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!place.home("config/secrets").exists());
    assert!(place.configuration().contains("[pools.pool-10-0-0-5]"), "{}", place.configuration());
}

#[test]
fn what_cannot_be_imported_changes_nothing() {
    let place = Place::new();
    let run = |text: &str, arguments: &[&str]| {
        place.write("old", text);
        place.run(&[&["config", "import", "old"], arguments].concat())
    };
    assert_eq!(place.run(&["config", "import", "nowhere"]).code, Some(2));
    assert_eq!(run("{", &[]).code, Some(1));
    assert_eq!(run("no settings", &[]).code, Some(1));
    let two = format!(
        r#"{{"xcpng_configs": {{"a": {{"password": "{PASSWORD}"}}, "b": {{"password": "{PASSWORD}"}}}}}}"#
    );
    assert_eq!(run(&two, &["--pool", "lab"]).code, Some(2));
    assert_eq!(place.configuration(), "");
    assert_eq!(run(&old(), &["--pool", "lab"]).code, Some(0));
    let other = format!("XCP_HOST=elsewhere\nXCP_PASSWORD='{PASSWORD}'\n");
    let ended = run(&other, &["--pool", "lab"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    fs::write(place.home("config/secrets/new"), "of somebody else\n").unwrap();
    let ended = run(&other, &["--pool", "new"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is there already, with another secret"), "{ended:?}");
    assert!(!place.configuration().contains("elsewhere"));
}

#[test]
fn each_setting_is_shown_with_where_it_comes_from() {
    let place = Place::new();
    place.configure(
        "version = 1\n[pools.lab]\naddresses = ['http://127.0.0.1:9']\npassword = 'env:LAB'\n\
         [defaults.xcpng]\npool = 'lab'\nmemory = '4GiB'\nnetwork = 'eth0'\n",
    );
    place.write("bioxen.toml", "version = 1\n\n[defaults.xcpng]\nmemory = '8GiB'\nvcpus = 8\n");
    let variables = [("BIOXEN_XCPNG_VCPUS", "2")];
    let shown = place.run_with(&variables, &["config", "show", "--json"]).json();
    let row = |name: &str| {
        let rows = shown.as_array().into_iter().flatten();
        rows.into_iter()
            .find(|row| row["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {shown}"))
    };
    let memory = row("defaults.xcpng.memory");
    assert_eq!((&memory["value"], &memory["line"]), (&json!("8GiB"), &json!(4)));
    assert!(memory["path"].as_str().is_some_and(|path| path.ends_with("work/bioxen.toml")));
    let variable = json!({"name": "defaults.xcpng.vcpus", "value": "2", "origin": "variable",
        "variable": "BIOXEN_XCPNG_VCPUS"});
    assert_eq!(row("defaults.xcpng.vcpus"), &variable);
    assert_eq!(row("defaults.xcpng.network")["origin"], "user");
    assert_eq!(
        (&row("pools.lab.user")["value"], &row("pools.lab.user")["origin"]),
        (&json!("root"), &json!("default"))
    );
    assert_eq!(row("directories.config")["variable"], "BIOXEN_HOME");
    let table = place.run(&["config", "show", "--origin"]);
    assert!(table.stdout.contains("ORIGIN") && table.stdout.contains("bioxen.toml:4"), "{table:?}");
    assert!(!place.run(&["config", "show"]).stdout.contains("ORIGIN"));
}

#[test]
fn a_project_chooses_a_pool_and_defines_none() {
    let place = Place::new();
    let pool = |port| format!("addresses = ['http://127.0.0.1:{port}']\npassword = 'env:LAB'\n");
    place.configure(&format!("version = 1\n[pools.a]\n{}[pools.b]\n{}", pool(1), pool(2)));
    assert_eq!(place.run(&["pool", "show", "--json"]).code, Some(2), "which of them?");
    place.write("bioxen.toml", "version = 1\n[defaults.xcpng]\npool = 'b'\n");
    assert_eq!(place.run(&["pool", "show", "--json"]).json()["name"], "b");
    let variables = [("BIOXEN_XCPNG_POOL", "a")];
    assert_eq!(place.run_with(&variables, &["pool", "show", "--json"]).json()["name"], "a");
    let variables = [("BIOXEN_XCPNG_POOL", "nowhere")];
    assert_eq!(place.run_with(&variables, &["pool", "show"]).code, Some(3));
    place.write("bioxen.toml", &format!("version = 1\n[pools.evil]\n{}", pool(3)));
    let ended = place.run(&["pool", "show"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("line 2, says `pools`"), "{ended:?}");
    assert!(ended.stderr.contains("not for a project to say"), "{ended:?}");
    assert_eq!(place.run(&["config", "show"]).code, Some(1));
}
