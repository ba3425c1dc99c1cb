use std::collections::BTreeSet;

use proptest::prelude::*;

use super::address::{address, name_of};
use super::*;

fn import(text: &str) -> Import {
    Import::parse(text, &Wishes::default()).unwrap()
}

/// What became of each key, in few words.
fn fates(import: &Import) -> Vec<(String, String)> {
    let mut fates: Vec<_> = import
        .findings
        .iter()
        .map(|finding| {
            let fate = match &finding.fate {
                Fate::Mapped { to, value, .. } => format!("{to} = {value}"),
                Fate::Moved { to, .. } => format!("{to} moved"),
                Fate::Dropped { why } => format!("dropped: {why}"),
                Fate::Unknown => "unknown".into(),
            };
            (finding.key.clone(), fate)
        })
        .collect();
    fates.sort();
    fates
}

#[track_caller]
fn becomes(text: &str, expected: &[(&str, &str)]) -> Import {
    let import = import(text);
    let found = fates(&import);
    let found: Vec<_> = found.iter().map(|(key, fate)| (key.as_str(), fate.as_str())).collect();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    import
}

#[test]
fn an_old_configuration_becomes_a_pool_and_defaults() {
    let text = r#"{
        "xcp_host": "xcp-01.example", "xcp_username": "root", "xcp_password": " s3cret ",
        "template_name": "lua-bio-template", "vm_username": "ada", "vm_password": "guest",
        "vm_config": {"memory": "2GB", "vcpus": 2, "storage": "20GB"},
        "vm_network": "Pool-wide network associated with eth0",
        "vm_name_prefix": "bioxen-lua", "verify_ssl": false, "colour": "red"
    }"#;
    let import = becomes(
        text,
        &[
            ("xcp_host", "pools.xcp-01.addresses = https://xcp-01.example"),
            ("xcp_username", "pools.xcp-01.user = root"),
            ("xcp_password", "pools.xcp-01.password moved"),
            ("template_name", "defaults.xcpng.template = lua-bio-template"),
            ("vm_username", "defaults.xcpng.ssh_user = ada"),
            ("vm_password", "dropped: guests have no passwords: each VM has a key of its own"),
            ("vm_config.memory", "defaults.xcpng.memory = 2GiB"),
            ("vm_config.vcpus", "defaults.xcpng.vcpus = 2"),
            ("vm_config.storage", "defaults.xcpng.disk = 20GiB"),
            ("vm_network", "defaults.xcpng.network = Pool-wide network associated with eth0"),
            ("vm_name_prefix", "defaults.xcpng.name_prefix = bioxen-lua"),
            (
                "verify_ssl",
                "dropped: certificates are always verified: have the pool's own compared and trusted \
                 with `bioxen pool trust NAME`",
            ),
            ("colour", "unknown"),
        ],
    );
    let [pool] = import.pools.as_slice() else { panic!("{import:?}") };
    assert_eq!(pool.password.as_ref().unwrap().expose(), " s3cret ");
    assert_eq!(import.defaults.pool.as_ref(), Some(&pool.name));
    assert!(!format!("{import:?}").contains("s3cret"));
    let secret = "env:A".parse().unwrap();
    assert_eq!(Import::settings(pool, &secret).trust, TrustSettings::Nothing);
}

#[test]
fn every_spelling_means_what_it_meant() {
    let pool = r#""xcp_host":"h","xcp_password":"p""#;
    for (setting, value, spellings) in [
        ("template", "t", &["template_name", "template", "xcp_template", "xcpng_template"][..]),
        ("ssh_user", "ada", &["vm_username", "ssh_user", "ssh_username"]),
        ("memory", "2GiB", &["memory", "vm_memory"]),
        ("vcpus", "4", &["vcpus", "vm_vcpus"]),
        ("disk", "8GiB", &["disk_size", "storage"]),
        ("size", "light", &["size", "size_class"]),
        ("network", "n", &["network_uuid", "vm_network", "default_network"]),
        ("storage", "s", &["storage_repository", "default_sr", "storage"]),
        ("name_prefix", "lab-", &["vm_name_prefix"]),
    ] {
        for spelling in spellings {
            let import = import(&format!(r#"{{{pool},"{spelling}":"{value}"}}"#));
            let found = import.defaults.entries();
            let expected = [("pool", "h".to_owned()), (setting, value.to_owned())];
            assert_eq!(found, expected, "{spelling}");
        }
    }
    for host in ["xcp_host", "xcpng_host", "xapi_url", "xo_api_url"] {
        for user in ["xcp_username", "xcpng_username", "username"] {
            for password in ["xcp_password", "xcpng_password", "password"] {
                let text = format!(
                    r#"{{"{host}":"https://h:443/","{user}":"ada","{password}":"{password}"}}"#
                );
                let import = import(&text);
                let [pool] = import.pools.as_slice() else { panic!("{text}: {import:?}") };
                assert_eq!(pool.address.to_string(), "https://h");
                assert_eq!(pool.user, "ada");
                assert_eq!(pool.password.as_ref().unwrap().expose(), password);
            }
        }
    }
}

#[test]
fn what_is_not_taken_over_says_why() {
    for key in [
        "vm_password",
        "ssh_password",
        "vm_key_file",
        "ssh_key_path",
        "ssh_key_file",
        "vm_name",
        "description",
        "verify_ssl",
        "ssh_timeout",
        "use_cloud_init",
        "cloud_init_config",
        "save_credentials",
        "xo_cli_path",
        "debug_mode",
        "lua_path",
        "lua_cpath",
        "lua_dev_mode",
        "lua_debug",
        "lua_production",
        "lua_networking",
        "pool_uuid",
        "networked",
        "persistent",
        "profile",
    ] {
        for value in [r#""x y""#, "true", "7", "null", "[1]", "{}"] {
            let import = import(&format!(r#"{{"{key}":{value}}}"#));
            let fate = &import.findings[0].fate;
            assert!(matches!(fate, Fate::Dropped { why } if !why.is_empty()), "{key}: {fate:?}");
            assert_eq!((import.findings.len(), import.defaults.entries().len()), (1, 0));
        }
    }
}

#[test]
fn variables_of_the_environment_are_the_same_in_capitals() {
    let text = "# lab\nexport XCP_HOST=10.0.0.5 # the master\nXCPNG_USERNAME='ada'\n\
        XCP_PASSWORD=\"pa\\\"ss #1\"\n\nXCP_TEMPLATE=Debian 12\nVM_USERNAME=debian\nVM_PASSWORD=x\n\
        VM_KEY_FILE=/k\nPYLUA_DEBUG=true\nLUA_PATH=./?.lua\nSHELL=/bin/sh\nVM_MEMORY=2048\n";
    let import = import(text);
    let [pool] = import.pools.as_slice() else { panic!("{import:?}") };
    assert_eq!((pool.name.as_str(), pool.user.as_str()), ("pool-10-0-0-5", "ada"));
    assert_eq!(pool.password.as_ref().unwrap().expose(), "pa\"ss #1");
    let found: Vec<String> = import.defaults.entries().into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, ["pool-10-0-0-5", "Debian 12", "2GiB", "debian"]);
    let unknown = |finding: &&Finding| finding.fate == Fate::Unknown;
    let unknown: Vec<_> = import.findings.iter().filter(unknown).map(|found| &found.key).collect();
    assert_eq!(unknown, ["SHELL"]);
    assert_eq!(import.findings.len(), 11);
}

#[test]
fn a_configuration_of_xen_orchestra_is_taken_with_a_warning() {
    let text = r#"{"xo_api_url": "https://xo.example/api", "username": "admin", "password": "p",
        "default_pool": "lab", "template_name": "t", "vm_name_prefix": "Lua-", "default_network": "n",
        "default_sr": "s", "ssh_user": "root", "ssh_key_path": "/k", "xo_cli_path": "/x"}"#;
    let import = import(text);
    let [pool] = import.pools.as_slice() else { panic!("{import:?}") };
    assert_eq!(
        (pool.name.as_str(), pool.address.to_string().as_str()),
        ("lab", "https://xo.example")
    );
    let note = |key: &str| match &import.findings.iter().find(|found| found.key == key)?.fate {
        Fate::Mapped { note, .. } => note.clone(),
        _ => None,
    };
    assert!(note("xo_api_url").unwrap().contains("master"));
    assert!(note("vm_name_prefix").unwrap().contains("lowercase"));
    assert!(fates(&import).contains(&("default_pool".into(), "defaults.xcpng.pool = lab".into())));
}

#[test]
fn the_uuid_of_a_pool_is_no_name_for_it() {
    let uuid = "b9f1c1f0-5a41-4a3e-9a53-9f7d6a1f7f10";
    let text = format!(r#"{{"xcp_host": "h", "password": "p", "pool_uuid": "{uuid}"}}"#);
    let import = import(&text);
    assert_eq!(import.pools[0].name.as_str(), "h");
    let fate = ("pool_uuid".into(), "dropped: a pool is known here by its address".into());
    assert!(fates(&import).contains(&fate));
}

#[test]
fn several_pools_are_named_after_their_hosts() {
    let text = r#"{"xcpng_configs": {
            "xcp-01.example": {"username": "root", "password": "a", "template": "t"},
            "second": {"xcp_host": "xcp-01.other", "xcp_password": "b", "template": "u"},
            "xcp-03": 7 },
        "xcpng": {"xcp_host": "xcp-01.example", "xcp_password": "a"},
        "vm_defaults": {"networked": true, "memory": 512}, "save_credentials": true}"#;
    let import = becomes(
        text,
        &[
            ("save_credentials", "dropped: passwords are never saved, only where they are"),
            (
                "vm_defaults.networked",
                "dropped: what a VM may touch is granted when it is made: `--allow-…`",
            ),
            ("vm_defaults.memory", "defaults.xcpng.memory = 512MiB"),
            ("xcpng.xcp_host", "pools.xcp-01.addresses = https://xcp-01.example"),
            ("xcpng.xcp_password", "pools.xcp-01.password moved"),
            ("xcpng_configs.second.template", "defaults.xcpng.template = u"),
            ("xcpng_configs.second.xcp_host", "pools.xcp-01-2.addresses = https://xcp-01.other"),
            ("xcpng_configs.second.xcp_password", "pools.xcp-01-2.password moved"),
            (
                "xcpng_configs.xcp-01.example.password",
                "dropped: this pool stands in the file before",
            ),
            (
                "xcpng_configs.xcp-01.example.template",
                "dropped: `xcpng_configs.second.template` says otherwise, and comes first",
            ),
            (
                "xcpng_configs.xcp-01.example.username",
                "dropped: this pool stands in the file before",
            ),
            ("xcpng_configs.xcp-03", "unknown"),
        ],
    );
    assert_eq!(import.pools.len(), 2);
    assert_eq!(import.defaults.pool, None, "nobody says which");
    let wishes = Wishes { pool: Some("lab".parse().unwrap()), password: None };
    let error = Import::parse(text, &wishes).unwrap_err();
    assert!(matches!(error, ImportError::SeveralPools { count: 2, .. }), "{error}");
}

#[test]
fn a_pool_without_a_password_or_an_address_is_none() {
    let no_password = "dropped: there is no password with it; say where one is with `--password`";
    let import = becomes(
        r#"{"xcp_host": "h", "xcp_username": "u", "xcp_password": ""}"#,
        &[
            ("xcp_host", no_password),
            ("xcp_username", no_password),
            ("xcp_password", "dropped: it is empty"),
        ],
    );
    assert!(import.pools.is_empty());
    let no_address = "dropped: there is no address of a pool with it";
    becomes("XCP_PASSWORD=hunter2", &[("XCP_PASSWORD", no_address)]);
    becomes(
        r#"{"xcp_host": "h", "xcp_password": "two\nlines"}"#,
        &[
            ("xcp_host", no_password),
            ("xcp_password", "dropped: it is no password: one has one line, and no zero byte"),
        ],
    );
    let wishes = Wishes { pool: None, password: Some("env:LAB".parse().unwrap()) };
    let import = Import::parse("XCP_HOST=h\nXCP_PASSWORD=hunter2\n", &wishes).unwrap();
    assert!(import.pools[0].password.is_none());
    let fate = ("XCP_PASSWORD".to_owned(), "pools.h.password = env:LAB".to_owned());
    assert!(fates(&import).contains(&fate));
}

#[test]
fn an_address_is_understood_in_its_old_forms() {
    for (text, expected) in [
        ("10.0.0.5", "https://10.0.0.5"),
        ("https://xcp-01:443", "https://xcp-01"),
        ("https://xcp-01:8443/sdk?x", "https://xcp-01:8443"),
        ("http://xcp-01:80/", "https://xcp-01"),
        ("http://127.0.0.1:8087", "http://127.0.0.1:8087"),
        ("[fd00::1]", "https://[fd00::1]"),
    ] {
        assert_eq!(address(text).unwrap().0.to_string(), expected, "{text}");
    }
    for text in ["", "ftp://a", "root:hunter2@a", "a b", "https://"] {
        let why = address(text).unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }
    for (text, name) in [("https://9nine", "pool-9nine"), ("https://[fd00::1]", "pool-fd00--1")] {
        assert_eq!(name_of(&text.parse().unwrap()).as_str(), name);
    }
}

#[test]
fn what_is_there_already_stays_as_it_is() {
    let present = |text: &str| Configuration::parse("c".into(), text).unwrap();
    let text = r#"{"xcp_host": "lab", "xcp_password": "p", "memory": "2GB", "vcpus": 2}"#;
    let there = present(
        "version = 1\n[pools.lab]\naddresses = ['https://lab']\npassword = 'env:A'\n\
         [defaults.xcpng]\nmemory = '4GiB'\n",
    );
    let mut import = import(text);
    import.leave_out_what_is_in(&there).unwrap();
    assert!(import.pools.is_empty());
    let left: Vec<_> = import.defaults.entries().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["pool", "vcpus"]);
    let found = fates(&import);
    let fate = |key: &str| &found.iter().find(|(known, _)| known == key).unwrap().1;
    assert_eq!(fate("xcp_host"), "dropped: pool `lab` is there already");
    assert_eq!(fate("xcp_password"), "dropped: pool `lab` is there already");
    assert_eq!(fate("memory"), "dropped: defaults.xcpng.memory is `4GiB` already");
    let other =
        present("version = 1\n[pools.lab]\naddresses = ['https://other']\npassword = 'env:A'\n");
    let error = self::import(text).leave_out_what_is_in(&other).unwrap_err();
    assert_eq!(error.to_string(), "there is another pool `lab` already, at https://other");
}

#[test]
fn a_moved_password_says_where_it_is() {
    let mut import = import(r#"{"xcp_host": "lab", "password": "p"}"#);
    let name = import.pools[0].name.clone();
    import.moved(&name, &"file:/s".parse().unwrap());
    let moved = Fate::Moved { to: "pools.lab.password".into(), value: "file:/s".into() };
    assert!(import.findings.iter().any(|finding| finding.fate == moved));
}

#[test]
fn what_is_no_configuration_is_refused_by_its_place() {
    let error = |text: &str| Import::parse(text, &Wishes::default()).unwrap_err().to_string();
    assert_eq!(error(" \n"), "it is empty");
    assert_eq!(error("{"), "it is no JSON");
    assert_eq!(error("[1]"), "it is JSON, and not an object of settings");
    assert_eq!(error("A=1\nsecret hunter2"), "line 2 is no KEY=VALUE");
    assert_eq!(error("A='1"), "line 1 is no KEY=VALUE");
    assert_eq!(error("A='1' 2"), "line 1 is no KEY=VALUE");
    assert_eq!(error("A B=1"), "line 1 is no KEY=VALUE");
}

proptest! {
    /// Any text is taken over or refused.
    #[test]
    fn any_text_has_an_answer(
        text in prop_oneof![
            "(?s).{0,80}",
            "(export )?[A-Z_]{0,9}( ?= ?)['\"\\\\a-z#$ ]{0,12}\n{0,2}([A-Z]{1,4}=.{0,9}\n){0,3}",
            "(?s)\\{(\"(xcp_host|memory|xcpng_configs|storage|default_pool)\":(\".{0,9}\"|\\{\\}|[0-9]{1,30}|null),?){0,4}\\}",
        ],
    ) {
        if let Ok(import) = Import::parse(&text, &Wishes::default()) {
            prop_assert!(import.pools.is_empty() || !import.findings.is_empty());
        }
    }

    /// Whatever stands in a file, each key has one fate and no password is shown.
    #[test]
    fn each_key_has_one_fate(
        names in proptest::collection::btree_set("[a-z_]{1,12}|xcp_host|xcp_username|memory|template", 1..8),
        value in "\\PC{0,12}",
    ) {
        let mut object: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), value.clone().into())).collect();
        object.insert("xcp_password".into(), "hunter2 stays hidden".into());
        let keys: BTreeSet<String> = object.keys().cloned().collect();
        let import = import(&serde_json::Value::Object(object).to_string());
        let found: Vec<String> = import.findings.iter().map(|found| found.key.clone()).collect();
        prop_assert_eq!(found.len(), keys.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
        let shown = format!("{import:?}");
        prop_assert!(!shown.contains("hunter2"));
    }
}
