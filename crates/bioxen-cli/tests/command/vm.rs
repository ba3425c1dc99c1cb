//! `bioxen vm` and `bioxen network`, against a simulated pool whose guests are processes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::sim::{Home, client};
use crate::support::{Ended, below, command, directory, has};
use crate::terminal::Terminal;

pub(crate) const TEMPLATE: &str = "Debian 12 (cloud-init)";

/// How long something that another process does may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Home {
    pub(crate) fn vm(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["vm"], arguments].concat())
    }

    /// Does something that must succeed, and answers what is told of it.
    pub(crate) fn done(&self, arguments: &[&str]) -> Value {
        let ended = self.vm(&[arguments, &["--json"]].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
        ended.json()
    }

    /// Does something that must fail, and answers its exit code and what it says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let ended = self.run(arguments);
        assert_eq!(ended.stdout, "", "{arguments:?}: {ended:?}");
        (ended.code.unwrap(), ended.stderr)
    }

    pub(crate) fn create(&self, name: &str, more: &[&str]) -> Value {
        self.done(&[&["create", name, "--template", TEMPLATE], more].concat())
    }

    /// What a VM that was started and is waited for says.
    pub(crate) fn answer(&self, name: &str) -> String {
        self.done(&["wait", name, "--timeout", "60s"]);
        let ended = self.vm(&["exec", name, "return 6 * 7"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        ended.stdout
    }

    fn names(&self) -> Vec<String> {
        let listed = self.done(&["list"]);
        let names = listed.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }
}

pub(crate) fn home(hosts: &str) -> Home {
    let home = Home::new();
    home.start(&["--hosts", hosts]);
    home
}

#[test]
fn a_vm_lives_its_whole_life() {
    let home = home("2");
    let made = home.create("gc", &[]);
    assert_eq!((&made["ready"], &made["interpreter"]), (&true.into(), &"Lua 5.4.9".into()));
    assert_eq!(home.done(&["snapshot", "gc", "fresh", "--dry-run"])["snapshot"], Value::Null);
    assert_eq!(home.done(&["snapshot", "gc", "fresh"])["snapshot"]["name"], "fresh");
    home.done(&["snapshot", "gc", "second"]);
    let delete = ["snapshot", "gc", "second", "--delete"];
    assert_eq!(home.done(&[&delete[..], &["--dry-run"]].concat())["deleted"], Value::Null);
    assert_eq!(home.vm(&delete).code, Some(1), "nobody can be asked here");
    assert_eq!(home.done(&[&delete[..], &["--yes"]].concat())["deleted"], "now");

    let files = directory(&[("genome.fasta", ">a\nGATTACA\n")]);
    std::fs::create_dir(files.path().join("more")).unwrap();
    std::fs::write(files.path().join("more/b.txt"), "b").unwrap();
    let copied = home.done(&["copy", &below(&files, "genome.fasta"), "gc:"]);
    assert_eq!(copied["bytes"], 11);
    home.done(&["copy", &below(&files, "more"), "gc:kept"]);
    home.done(&["copy", "gc:kept", &below(&files, "back")]);
    assert_eq!(std::fs::read_to_string(files.path().join("back/b.txt")).unwrap(), "b");
    if has("ssh") {
        let read = home.vm(&["ssh", "gc", "--", "cat", "genome.fasta"]);
        assert_eq!(read, Ended::well(">a\nGATTACA\n"));
        assert_eq!(home.vm(&["ssh", "gc", "--", "exit 7"]).code, Some(7));
        let words = home.vm(&["ssh", "gc", "--", "printf", "%s|", "a b", "$HOME;'"]);
        assert_eq!(words, Ended::well("a b|$HOME;'|"));
    }

    assert_eq!(home.done(&["suspend", "gc"])["suspended"], "now");
    assert_eq!(home.done(&["suspend", "gc"])["suspended"], "already");
    assert_eq!(home.done(&["resume", "gc"])["resumed"], "now");
    assert_eq!(home.done(&["reboot", "gc"])["rebooted"], "cleanly");
    assert_eq!(home.done(&["stop", "gc", "--force"])["stopped"]["hard"], "asked");
    let stopped = home.vm(&["stop", "gc"]);
    assert_eq!(stopped, Ended::well("vm `gc` is off already\n"));
    assert_eq!(home.done(&["start", "gc", "--host", "xcp-01"])["started"], "booted");
    assert_eq!(home.answer("gc"), "42\n");

    let planned = home.done(&["migrate", "gc", "xcp-02", "--dry-run"]);
    assert_eq!((&planned["moved"], &planned["dry_run"]), (&Value::Null, &true.into()));
    assert_eq!(home.done(&["show", "gc"])["machine"]["host"], "xcp-01");
    assert_eq!(home.done(&["migrate", "gc", "xcp-02"])["moved"], "now");
    assert_eq!(home.done(&["show", "gc"])["machine"]["host"], "xcp-02");

    let wanted = ["resize", "gc", "--memory", "3GiB", "--vcpus", "3"];
    let planned = home.done(&[&wanted[..], &["--dry-run"]].concat());
    assert_eq!(planned["needs_stop"].as_array().map(Vec::len), Some(2));
    let (code, said) = home.refused(&[&["vm"], &wanted[..]].concat());
    assert!(code == 4 && said.contains("--stop-if-needed"), "{code}: {said}");
    let resized = home.done(&[&wanted[..], &["--stop-if-needed"]].concat());
    assert_eq!(resized["stopped"], "cleanly");
    let listed = &home.done(&["list"])[0];
    assert_eq!((&listed["memory"], &listed["vcpus"]), (&(3_u64 << 30).into(), &3.into()));

    let planned = home.done(&["restore", "gc", "fresh", "--dry-run"]);
    assert_eq!(planned["snapshot"]["name"], "fresh");
    assert_eq!(home.vm(&["restore", "gc", "fresh"]).code, Some(1), "nobody can be asked here");
    let restored = home.done(&["restore", "gc", "fresh", "--start", "--yes"]);
    assert_eq!((&restored["before"], &restored["started"]), (&"running".into(), &true.into()));
    assert_eq!(home.done(&["list"])[0]["memory"], 2_u64 << 30, "as it was in the snapshot");
    let snapshots = home.done(&["snapshots", "gc"]);
    assert_eq!(
        (&snapshots[0]["name"], snapshots.as_array().map(Vec::len)),
        (&"fresh".into(), Some(1))
    );
    assert_eq!(home.answer("gc"), "42\n");

    assert_eq!(home.done(&["delete", "gc", "--yes"])["deleted"]["snapshots"], 1);
    assert_eq!(home.names(), [""; 0]);
    assert_eq!(home.done(&["leaks"]), Value::Array(Vec::new()));
    assert_eq!(home.status()["vms"], 0);
}

#[test]
fn a_clone_has_an_identity_of_its_own_and_is_collected_when_its_time_is_over() {
    let home = home("1");
    home.create("origin", &["--user", "ada"]);
    let planned = home.done(&["clone", "origin", "copy", "--dry-run"]);
    assert_eq!((&planned["origin"], &planned["disks"]), (&"origin".into(), &1.into()));
    assert_eq!(home.names(), ["origin"]);
    let made = home.done(&["clone", "origin", "copy", "--ttl", "1s"]);
    assert_eq!((&made["name"], &made["ready"]), (&"copy".into(), &true.into()));
    let [origin, copy] = ["origin", "copy"].map(|name| home.done(&["show", name]));
    assert_eq!(copy["user"], "ada");
    for field in ["host_key", "address", "seed"] {
        assert!(copy[field].is_string() && copy[field] != origin[field], "{field}: {copy}");
    }
    assert_eq!(home.answer("copy"), "42\n");
    assert_eq!(home.answer("origin"), "42\n", "it is as it was");

    // Its second was over before the last of these commands began.
    let leaks = home.done(&["leaks"]);
    assert_eq!((&leaks[0]["name"], leaks.as_array().map(Vec::len)), (&"copy".into(), Some(1)));
    assert!(leaks[0]["reason"]["expired"].is_object(), "{leaks}");
    assert_eq!(home.done(&["gc", "--dry-run"])[0]["outcome"], Value::Null);
    assert_eq!(home.vm(&["gc"]).code, Some(1), "nobody can be asked here");
    assert_eq!(home.names(), ["copy", "origin"]);
    assert_eq!(home.done(&["gc", "--yes"])[0]["outcome"], "removed");
    assert_eq!(home.names(), ["origin"]);
    assert_eq!(home.vm(&["gc", "--yes"]), Ended::well("nothing was left behind\n"));
    assert_eq!(home.status()["vms"], 1);
}

#[test]
fn what_a_killed_create_leaves_is_collected_and_forgotten() {
    let home = home("1");
    let mut create = command(["vm", "create", "gc", "--template", TEMPLATE]);
    create.env("BIOXEN_HOME", home.path("")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut create = create.spawn().unwrap();
    let start = Instant::now();
    // It is noted before it is there, and has its uuid once it is.
    while home.done(&["list"])[0]["uuid"].is_null() {
        assert!(start.elapsed() < PATIENCE, "it is not begun");
    }
    assert_eq!(home.done(&["leaks"]), Value::Array(Vec::new()), "somebody sees to it");
    create.kill().unwrap();
    create.wait().unwrap();
    let leaks = home.done(&["leaks"]);
    assert!(leaks.as_array().is_some_and(|leaks| leaks.iter().any(|it| it["kind"] == "vm")));
    let collected = home.done(&["gc", "--yes"]);
    let collected = collected.as_array().unwrap();
    assert!(collected.iter().all(|it| it["settled"] == true), "{collected:?}");
    assert_eq!(home.names(), [""; 0]);
    assert_eq!(home.status()["vms"], 0);
}

#[test]
fn what_is_left_on_several_pools_is_collected_and_one_that_is_away_is_told_of() {
    let home = home("1");
    let runtime = Runtime::new().unwrap();
    let other = runtime.block_on(xenapi_sim::Pool::builder().password("secret").start()).unwrap();
    std::fs::write(home.path("password"), "secret").unwrap();
    let password = format!("file:{}", home.path("password").display());
    let trust = ["--password", &password, "--fingerprint", other.fingerprint()];
    let added = home.run(&[&["pool", "add", "other", &other.url()], &trust[..]].concat());
    assert_eq!(added.code, Some(0), "{added:?}");
    for (name, pool) in [("here", "sim"), ("there", "other")] {
        home.create(name, &["--pool", pool, "--ttl", "1s", "--no-wait"]);
    }
    std::thread::sleep(Duration::from_secs(1));
    let collected = home.done(&["gc", "--pool", "other", "--yes"]);
    assert_eq!((&collected[0]["name"], collected.as_array().unwrap().len()), (&"there".into(), 1));
    home.create("there", &["--pool", "other", "--ttl", "1s", "--no-wait"]);
    std::thread::sleep(Duration::from_secs(1));
    let collected = home.done(&["gc", "--yes"]);
    let pools = collected.as_array().unwrap().iter().map(|row| row["pool"].as_str().unwrap());
    assert_eq!(pools.collect::<Vec<_>>(), ["other", "sim"]);
    assert_eq!(home.names(), [""; 0]);

    runtime.block_on(other.stop());
    let ended = home.vm(&["gc", "--yes"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "nothing was left behind\n"));
    assert!(ended.stderr.contains("pool `other` was not asked"), "{ended:?}");
}

/// Makes a VM that was there before us, in a home of its own: one that lets this key in.
pub(crate) fn stranger(home: &Home, key: &Path) {
    let public = key.with_extension("pub");
    home.create("stranger", &["--user", "ada", "--authorized-keys", public.to_str().unwrap()]);
    Runtime::new().unwrap().block_on(async {
        let client = client(home).await;
        let vm = client.vm().get_by_name_label("stranger").await.unwrap().remove(0);
        client.vm().set_other_config(&vm, &xenapi::Map::default()).await.unwrap();
        client.close().await.unwrap();
    });
    // What was remembered of it here.
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(home.path("state").join(file));
    }
}

#[test]
fn an_adopted_vm_is_used_and_never_deleted() {
    let home = home("1");
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let pair = bioxen_xcp::ssh::ClientKey::generate("test");
    std::fs::write(&key, pair.to_openssh().expose()).unwrap();
    std::fs::write(key.with_extension("pub"), format!("{}\n", pair.public())).unwrap();
    stranger(&home, &key);
    let key = key.to_str().unwrap();
    let adopt = ["vm", "adopt", "stranger", "--name", "mine", "--user", "ada", "--key", key];

    let (code, said) = home.refused(&adopt);
    assert_eq!(code, 5, "{said}");
    let shown = said.split("--host-key '").nth(1).and_then(|rest| rest.split('\'').next());
    let host_key = shown.unwrap_or_else(|| panic!("no key is shown: {said}")).to_owned();
    let other = bioxen_xcp::ssh::ClientKey::generate("other").public().to_string();
    let (code, said) = home.refused(&[&adopt[..], &["--host-key", &other]].concat());
    assert!(code == 5 && said.contains("is not who it should be"), "{code}: {said}");
    assert_eq!(home.names(), [""; 0], "nothing is remembered of what failed");

    if has("tmux") {
        // A person is asked, and may leave instead of answering.
        for (answer, code) in [(&["C-c"][..], 130), (&["n", "Enter"], 1)] {
            let terminal = Terminal::start_in(&home.path(""), &adopt.join(" "));
            terminal.wait_for("from now on? [y/N]");
            terminal.press(answer);
            terminal.wait_for(&format!("[exit {code}]"));
            assert_eq!(home.names(), [""; 0], "{answer:?}");
        }
        let terminal = Terminal::start_in(&home.path(""), &adopt.join(" "));
        terminal.wait_for("from now on? [y/N]");
        terminal.press(&["y", "Enter"]);
        terminal.wait_for("[exit 0]");
        home.done(&["forget", "mine"]);
    }
    let adopted = home.done(&[&adopt[1..], &["--host-key", &host_key]].concat());
    assert_eq!(adopted["name"], "mine");
    assert_eq!(home.answer("mine"), "42\n");
    assert_eq!(home.done(&["show", "mine"])["adopted"], true);
    assert_eq!(home.done(&["leaks"]), Value::Array(Vec::new()));
    let (code, said) = home.refused(&adopt);
    assert!(code == 4 && said.contains("there is a vm `mine` already"), "{code}: {said}");

    let forgotten = home.vm(&["forget", "mine"]);
    assert_eq!(forgotten, Ended::well("vm `mine` is forgotten, and stays on pool `sim`\n"));
    let again = home.done(&[&adopt[1..], &["--trust-on-first-use"]].concat());
    assert_eq!(again["host_key"], adopted["host_key"]);
    assert_eq!(home.done(&["delete", "mine", "--yes"])["deleted"], Value::Null);
    assert_eq!(home.status()["running"], 1);
}

#[test]
fn a_vm_whose_pool_is_known_no_more_is_told_of_and_can_be_forgotten() {
    let home = home("1");
    let made = home.create("gc", &["--no-wait"]);
    let uuid = made["uuid"].as_str().unwrap();
    let configuration = std::fs::read_to_string(home.path("config/config.toml")).unwrap();
    assert_eq!(home.run(&["pool", "remove", "sim", "--yes"]).code, Some(0));

    let row = &home.done(&["list"])[0];
    assert_eq!((&row["state"], &row["pool_known"]), (&Value::Null, &false.into()));
    assert!(home.vm(&["list"]).stdout.contains("pool unknown"));
    for arguments in
        [&["vm", "delete", "gc", "--yes"][..], &["vm", "show", "gc"], &["vm", "stop", "gc"]]
    {
        let (code, said) = home.refused(arguments);
        assert!(code == 3 && said.contains("pool `sim`, which is not in"), "{arguments:?}: {said}");
        assert!(
            said.contains("bioxen vm forget gc") && said.contains("bioxen sim start"),
            "{said}"
        );
    }
    assert_eq!(home.done(&["gc", "--dry-run"])[0]["kind"], "record");
    assert_eq!(home.done(&["leaks"])[0]["name"], "gc");
    let collected = home.vm(&["gc", "--yes", "--json"]);
    assert_eq!((collected.code, &collected.json()[0]["settled"]), (Some(1), &false.into()));

    // Put back, it can be used and is not simply forgotten.
    std::fs::write(home.path("config/config.toml"), &configuration).unwrap();
    assert_eq!(home.refused(&["vm", "forget", "gc"]).0, 4);
    assert_eq!(home.done(&["list"])[0]["state"], "running");
    assert_eq!(home.run(&["pool", "remove", "sim", "--yes"]).code, Some(0));
    let forgotten = home.vm(&["forget", "gc"]);
    let said = format!(
        "vm `gc` is forgotten; what there is of it stays on pool `sim`, with our marks, as {uuid}\n"
    );
    assert_eq!(forgotten, Ended::well(&said));
    assert_eq!(home.names(), [""; 0]);
    assert_eq!(home.status()["vms"], 1);
}

#[test]
fn a_vm_gets_an_address_of_those_that_are_declared_and_gives_it_back() {
    let home = home("1");
    let network = "Pool-wide network associated with eth0";
    let path = home.path("config/config.toml");
    let declared = format!(
        "\n[pools.sim.networks.\"{network}\"]\naddresses = \"127.8.3.100-127.8.3.101\"\nprefix = 24\n\
         gateway = \"127.8.3.1\"\ndns = [\"127.8.3.1\"]\n"
    );
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before + &declared).unwrap();
    assert_eq!(home.sim(&["start"]).code, Some(0), "it runs already");
    let shown = home.run(&["config", "show"]).stdout;
    assert!(shown.contains("127.8.3.100-127.8.3.101"), "{shown}");

    let address = |planned: &Value| planned["interfaces"]["these"][0]["address"].clone();
    let plan = |more: &[&str]| {
        let create = ["create", "new", "--template", TEMPLATE, "--dry-run"];
        home.done(&[&create[..], more].concat())
    };
    assert_eq!(address(&plan(&[])), "127.8.3.100/24", "the template's interface is there");
    assert_eq!(address(&plan(&["--network", &format!("{network},address=dhcp")])), Value::Null);
    let one = home.create("one", &[]);
    assert_eq!(one["address"], "127.8.3.100");
    assert_eq!(home.answer("one"), "42\n");
    home.done(&["reboot", "one"]);
    assert_eq!(home.answer("one"), "42\n", "the guest remembers its address");
    let shown = home.done(&["show", "one"]);
    assert_eq!(shown["address_known_by"], "static");
    assert_eq!(address(&plan(&[])), "127.8.3.101/24");
    assert_eq!(home.create("two", &["--no-wait"])["address"], "127.8.3.101");
    for arguments in [&["--dry-run"][..], &["--no-wait"]] {
        let create = ["vm", "create", "three", "--template", TEMPLATE];
        let (code, said) = home.refused(&[&create[..], arguments].concat());
        assert!(
            code != 0 && said.contains("no address of 127.8.3.100-127.8.3.101 is free"),
            "{said}"
        );
    }
    assert_eq!(home.names(), ["one", "two"]);
    let (_, said) = home.refused(&["vm", "clone", "one", "copy"]);
    assert!(said.contains("both would have the address 127.8.3.100"), "{said}");
    home.done(&["delete", "one", "--yes"]);
    assert_eq!(address(&plan(&[])), "127.8.3.100/24");
    home.done(&["delete", "two", "--yes"]);
}

#[test]
fn a_screen_is_shown_through_a_port_of_this_machine() {
    let home = home("1");
    home.create("gc", &["--no-wait"]);
    let shown = home.done(&["console", "gc"]);
    assert_eq!((&shown["protocol"], &shown["listening"]), (&"rfb".into(), &Value::Null));
    let mut console = command(["vm", "console", "gc", "--listen", "--json"]);
    console.env("BIOXEN_HOME", home.path("")).stdout(Stdio::piped());
    let mut console = console.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(console.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let mut viewer = TcpStream::connect(told["listening"].as_str().unwrap()).unwrap();
    viewer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 4];
    viewer.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB ");
    let pid = console.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(console.wait().unwrap().code(), Some(0));
}

#[test]
fn a_console_of_text_is_this_terminal_until_it_is_left_or_ends() {
    if !has("tmux") {
        return;
    }
    let home = home("1");
    home.create("gc", &["--no-wait"]);
    home.done(&["stop", "gc", "--force"]);
    // Guests of this kind alone have a console of text.
    Runtime::new().unwrap().block_on(async {
        let client = client(&home).await;
        let vm = client.vm().get_by_name_label("gc").await.unwrap().remove(0);
        client.vm().set_hvm_boot_policy(&vm, "").await.unwrap();
        client.vm().set_domain_type(&vm, xenapi::enums::DomainType::Pv).await.unwrap();
        client.close().await.unwrap();
    });
    home.done(&["start", "gc"]);
    assert_eq!(home.done(&["console", "gc"])["protocol"], "vt100");

    let terminal = Terminal::start_in(&home.path(""), "vm console gc");
    terminal.wait_for("login:");
    terminal.type_in("ada");
    terminal.wait_for("login: ada");
    terminal.press(&["C-]"]);
    terminal.wait_for("[exit 0]");

    let terminal = Terminal::start_in(&home.path(""), "vm console gc");
    terminal.wait_for("login:");
    home.done(&["stop", "gc", "--force"]);
    terminal.wait_for("[exit 0]");
}

#[test]
fn a_copy_says_how_far_it_is_and_leaves_only_its_end_on_the_terminal() {
    if !has("tmux") {
        return;
    }
    let home = home("1");
    home.create("gc", &[]);
    let large = home.path("large");
    std::fs::File::create(&large).unwrap().set_len(512 << 20).unwrap();
    let terminal = Terminal::start_in(&home.path(""), &format!("vm copy {} gc:", large.display()));
    terminal.wait_for(" a second");
    let screen = terminal.wait_for("[exit 0]");
    assert!(screen.contains("copied 512.0 MiB") && !screen.contains("a second"), "{screen}");
}

#[test]
fn networks_are_made_used_and_deleted() {
    let home = home("1");
    let network = |arguments: &[&str]| {
        let ended = home.run(&[&["network"], arguments, &["--json"]].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        ended.json()
    };
    let ours = || {
        let rows = network(&["list"]);
        rows.as_array().unwrap().iter().filter(|row| row["ours"] == true).count()
    };
    assert_eq!(network(&["create", "lab", "--dry-run"])["uuid"], Value::Null);
    assert_eq!(ours(), 0);
    assert!(network(&["create", "lab"])["uuid"].is_string());
    let vlan = ["create", "sequencers", "--vlan", "120", "--device", "eth0"];
    assert_eq!(network(&vlan)["vlan"], 120);
    assert_eq!(ours(), 2);
    home.create("gc", &["--network", "lab", "--no-wait"]);
    for (arguments, code, said) in [
        (&["create", "lab"][..], 4, "there is a network `lab` already"),
        (&["create", "x", "--vlan", "5000", "--device", "eth0"], 2, "tags are from 1 to 4094"),
        (&["create", "x", "--vlan", "7", "--device", "eth9"], 2, "there are `eth0`"),
        (&["create", "x", "--vlan", "7"], 2, "--device"),
        (&["delete", "lab", "--yes"], 4, "`gc` (interface 0)"),
        (&["delete", "nowhere", "--yes"], 3, "there is no network `nowhere`"),
        (&["delete", "Pool-wide network associated with eth0", "--yes"], 4, "was not made by"),
        (&["delete", "sequencers"], 1, "network `sequencers` was not deleted"),
    ] {
        let (found, stderr) = home.refused(&[&["network"], arguments].concat());
        assert!(found == code && stderr.contains(said), "{arguments:?}: {found}: {stderr}");
    }
    home.done(&["delete", "gc", "--yes"]);
    assert_eq!(network(&["delete", "lab", "--dry-run"])["deleted"], Value::Null);
    assert_eq!(network(&["delete", "lab", "--yes"])["deleted"], "now");
    assert_eq!(home.done(&["gc", "--yes"])[0]["settled"], true, "a network is left to its owner");
    assert_eq!(network(&["delete", "sequencers", "--yes"])["deleted"], "now");
}

#[test]
fn what_cannot_be_done_is_a_sentence_and_a_code() {
    let home = home("1");
    home.create("gc", &["--no-wait"]);
    home.done(&["stop", "gc", "--force"]);
    for (arguments, code, said) in [
        (&["start", "nobody"][..], 3, "there is no vm `nobody`"),
        (&["start", "gc", "--host", "xcp-9"], 3, "there is no host `xcp-9`"),
        (&["suspend", "gc"], 4, "it is halted"),
        (&["reboot", "gc"], 4, "start it with `bioxen vm start gc`"),
        (&["migrate", "gc", "xcp-01"], 4, "it is halted"),
        (&["console", "gc"], 4, "vm `gc` has no such console"),
        (&["ssh", "gc"], 4, "it is halted"),
        (&["copy", "a", "gc:"], 4, "it is halted"),
        (&["copy", "a", "b"], 2, "write NAME:PATH"),
        (&["copy", "No VM:a", "b"], 2, "No VM"),
        (&["restore", "gc", "never", "--yes"], 3, "it has no snapshot `never`"),
        (&["snapshot", "gc", "never", "--delete", "--yes"], 3, "it has no snapshot `never`"),
        (&["snapshot", "gc", " "], 2, "a snapshot's name is neither empty nor a uuid"),
        (&["resize", "gc"], 2, "--memory"),
        (&["resize", "gc", "--disk", "1GiB"], 2, "cannot be made smaller"),
        (&["resize", "gc", "--vcpus", "0"], 2, "at least one processor"),
        (&["stop", "gc", "--force", "--grace", "1s"], 2, "cannot be used with"),
        (&["clone", "gc", "gc"], 4, "there is a vm `gc` already"),
        (&["forget", "gc"], 4, "remove it with `bioxen vm delete gc`"),
        (&["gc", "--pool", "nowhere"], 3, "nowhere"),
        (&["adopt", "x", "--name", "y", "--user", "u", "--key", "/nowhere"], 2, "/nowhere"),
        (&["create", "x", "--type", "basic"], 2, "bioxen run"),
    ] {
        let (found, stderr) = home.refused(&[&["vm"], arguments].concat());
        assert!(found == code && stderr.contains(said), "{arguments:?}: {found}: {stderr}");
    }
}
