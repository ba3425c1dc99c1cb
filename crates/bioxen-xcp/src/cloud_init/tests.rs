//! Rules of the builder and its checks, held against what it writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::ssh_keys::tests::{PUBLIC, private};
use super::*;

fn instance() -> InstanceId {
    InstanceId::new("5f9d6b5e-7a0c-4f1b-8f39-0c8f0a9f6f11").unwrap()
}

fn name(name: &str) -> AccountName {
    AccountName::new(name).unwrap()
}

/// What a reader of YAML finds in the user data.
fn read(settings: &CloudInit) -> serde_json::Value {
    let seed = settings.seed(&instance()).unwrap();
    serde_saphyr::from_str(seed.user_data()).unwrap()
}

#[test]
fn nothing_asked_for_is_little_written() {
    let seed = CloudInit::new().seed(&instance()).unwrap();
    let expected = "#cloud-config\n{\n  \"ssh_pwauth\": false,\n  \"growpart\": {\n    \"mode\": \"auto\",\n    \
                    \"devices\": [\n      \"/\"\n    ]\n  },\n  \"resize_rootfs\": true\n}\n";
    assert_eq!(seed.user_data(), expected);
    let id = "{\n  \"instance-id\": \"5f9d6b5e-7a0c-4f1b-8f39-0c8f0a9f6f11\"\n}\n";
    assert_eq!(seed.meta_data(), id);
    assert_eq!(seed.network_config(), None);
}

#[test]
fn a_user_has_no_password_unless_given_one() {
    let plain = read(&CloudInit::new().user(User::new(name("ada"))));
    assert_eq!(plain["users"][0], serde_json::json!({"name": "ada", "lock_passwd": true}));
    let hash = PasswordHash::sha512_with_salt(&"open sesame".into(), &[7; 12]);
    let kept =
        read(&CloudInit::new().user(User::new(name("ada")).password(hash.clone(), Expiry::Never)));
    assert_eq!(kept["users"][0]["passwd"], hash.expose());
    assert_eq!(kept["users"][0]["lock_passwd"], false);
    assert_eq!(kept["ssh_pwauth"], false);
    let expiring =
        read(&CloudInit::new().user(User::new(name("ada")).password(hash, Expiry::AtFirstLogin)));
    assert_eq!(expiring["users"][0].get("passwd"), None);
    assert_eq!(expiring["chpasswd"]["expire"], true);
    assert_eq!(expiring["chpasswd"]["users"][0]["name"], "ada");
}

#[test]
fn a_file_of_a_user_waits_until_the_user_is_there() {
    let file = FileToWrite::new("/home/ada/x", "").unwrap();
    let settings = CloudInit::new()
        .user(User::new(name("ada")))
        .file(file.clone().owner(name("ada"), name("ada")))
        .file(FileToWrite::new("/y", "").unwrap().owner(name("root"), name("root")));
    let read = read(&settings);
    assert_eq!(read["write_files"][0]["defer"], true);
    assert_eq!(read["write_files"][1].get("defer"), None);
}

#[test]
fn what_is_there_twice_is_refused() {
    let mac: MacAddress = "0a:00:00:00:00:01".parse().unwrap();
    let key = HostKey::new(private(), PUBLIC).unwrap();
    let file = FileToWrite::new("/x", "").unwrap();
    let refused = |settings: CloudInit| settings.seed(&instance()).unwrap_err();
    let settings = CloudInit::new;
    let user = User::new(name("ada"));
    let error = refused(settings().user(user.clone()).user(user));
    assert_eq!(error, SeedError::SameUser { name: name("ada") });
    let error = refused(settings().file(file.clone()).file(file.clone()));
    assert_eq!(error, SeedError::SameFile { path: "/x".into() });
    assert!(settings().file(file.clone()).file(file.append()).seed(&instance()).is_ok());
    let error = refused(settings().host_key(key.clone()).host_key(key));
    assert_eq!(error, SeedError::SameAlgorithm { algorithm: HostKeyAlgorithm::Ed25519 });
    let error = refused(settings().interface(Interface::dhcp(mac)).interface(Interface::dhcp(mac)));
    assert_eq!(error, SeedError::SameMac { mac });
    let error = refused(settings().file(FileToWrite::new("/x", vec![0; LARGEST_SEED]).unwrap()));
    assert!(matches!(error, SeedError::TooLarge { .. }), "{error}");
}

#[test]
fn a_name_with_its_domain_gives_both_names() {
    for settings in [
        CloudInit::new().hostname("node.lab.example".parse().unwrap()),
        CloudInit::new().fqdn("node.lab.example".parse().unwrap()),
    ] {
        let read = read(&settings);
        assert_eq!(read["hostname"], "node");
        assert_eq!(read["fqdn"], "node.lab.example");
        assert_eq!(read["manage_etc_hosts"], "localhost");
    }
}

#[test]
fn addresses_to_call_are_web_addresses() {
    for url in ["http://192.0.2.1:8080/home/$INSTANCE_ID", "https://[2001:db8::1]/x?y=1"] {
        assert!(CallHome::new(url).is_ok(), "{url}");
    }
    for url in ["", "ftp://a", "http://", "http:///x", "http://a b", "http://a/$HOME", "http://a\n"]
    {
        assert!(CallHome::new(url).is_err(), "{url}");
    }
}

#[test]
fn a_cloud_config_of_the_user_s_own_is_merged_and_what_gave_way_is_named() {
    let config = "#cloud-config\nhostname: theirs\nusers: [default, {name: ada}]\nssh_pwauth: yes\n\
                  growpart: {mode: off}\nswap: {size: 0}\nruncmd:\n- echo theirs\n";
    let settings = CloudInit::new()
        .hostname("ours".parse().unwrap())
        .user(User::new(name("ada")))
        .command(Command::arguments(["echo", "ours"]).unwrap())
        .merge(CloudConfig::new(config).unwrap());
    let read = read(&settings);
    assert_eq!(read["hostname"], "ours");
    assert_eq!(read["users"].as_array().unwrap().len(), 2);
    assert_eq!(read["ssh_pwauth"], true);
    assert_eq!(read["runcmd"], serde_json::json!([["echo", "ours"], "echo theirs"]));
    assert_eq!(read["swap"]["size"], 0);
    let seed = settings.seed(&instance()).unwrap();
    let messages: Vec<_> = seed.overridden().iter().map(ToString::to_string).collect();
    let set = "of the cloud-config is left out: it is set by the VM's own settings";
    assert_eq!(messages, [format!("`hostname` {set}"), format!("`users[ada]` {set}")]);
}

#[test]
fn no_secret_is_shown() {
    let secret = private();
    let hash = PasswordHash::sha512_with_salt(&"open sesame".into(), &[7; 12]);
    let settings = CloudInit::new()
        .host_key(HostKey::new(secret.clone(), PUBLIC).unwrap())
        .user(User::new(name("ada")).password(hash.clone(), Expiry::Never))
        .file(FileToWrite::new("/token", "hunter2").unwrap())
        .merge(CloudConfig::new("#cloud-config\npassword: hunter2\n").unwrap());
    let seed = settings.seed(&instance()).unwrap();
    let disk = crate::seed_disk::SeedDisk::new(&seed);
    for shown in [format!("{settings:?}"), format!("{seed:?}"), format!("{disk:?}")] {
        let body = secret.expose().lines().nth(1).unwrap();
        for hidden in [body, hash.expose(), "hunter2", "aHVudGVyMg=="] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}

/// Texts that a reader of YAML could take for something else.
pub(super) fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "yes", "no", "on", "~", "null", "0o7", "0644", "1e3", "1.5", "12:30", "- ", ": ", " #",
            "#", "\"", "'", "\\", "\n", "\r\n", "\t", "{", "}", "[", "]", ",", "&a", "*a", "!!x ",
            "|", ">", "%", "@", "`", "---", "...", "<<", "=", "\u{85}", "\u{2028}", "\u{feff}",
            "\u{7f}", "\u{fffe}", "${x}", "é", "日本", "🧬", " ",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn hostile_texts_come_through_as_they_are(
        texts in prop::collection::vec(hostile(), 1..6),
        content in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let clean: Vec<String> = texts.iter().map(|text| text.replace('\0', "")).collect();
        let words: Vec<&str> = ["true"].into_iter().chain(clean.iter().map(String::as_str)).collect();
        let mut settings = CloudInit::new()
            .command(Command::arguments(words.clone()).unwrap())
            .file(FileToWrite::new("/x", content.clone()).unwrap());
        let mut user = User::new(name("ada"));
        let full_name = clean.concat();
        let taken = user.clone().full_name(&full_name);
        prop_assert_eq!(
            taken.is_ok(),
            !full_name.contains(|letter: char| letter == ':' || letter.is_control())
        );
        user = taken.unwrap_or(user);
        settings = settings.user(user);
        let shell: Vec<&String> = clean.iter().filter(|text| !text.trim().is_empty()).collect();
        for text in &shell {
            settings = settings.command(Command::shell(text.as_str()).unwrap());
        }
        let read = read(&settings);
        prop_assert_eq!(&read["runcmd"][0], &serde_json::json!(words));
        for (index, text) in shell.iter().enumerate() {
            prop_assert_eq!(read["runcmd"][index + 1].as_str(), Some(text.as_str()));
        }
        if let Some(gecos) = read["users"][0].get("gecos") {
            prop_assert_eq!(gecos.as_str(), Some(full_name.as_str()));
        }
        let found = STANDARD.decode(read["write_files"][0]["content"].as_str().unwrap()).unwrap();
        prop_assert_eq!(found, content);
        prop_assert_eq!(settings.seed(&instance()).unwrap(), settings.seed(&instance()).unwrap());
    }

    #[test]
    fn hostile_texts_in_a_config_of_the_user_s_own_come_through(text in hostile()) {
        let config = format!("#cloud-config\n{{\"final_message\": {}}}\n", serde_json::json!(text));
        // Not every text can stand in a document as it is.
        if let Ok(config) = CloudConfig::new(&config) {
            let read = read(&CloudInit::new().merge(config));
            prop_assert_eq!(read["final_message"].as_str(), Some(text.as_str()));
        }
    }
}
