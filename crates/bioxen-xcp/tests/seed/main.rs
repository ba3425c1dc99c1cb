//! What real programs make of our seeds: cloud-init itself, and those that read its disk.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

mod support;

use std::fs;
use std::path::Path;

use bioxen_xcp::cloud_init::*;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use support::{PUBLIC, ask, disk_in, everything, find, instance, output, run};

/// Reads a seed as cloud-init does on a guest.
const SOURCE: &str = r#"
import json, sys
from cloudinit import helpers, util
from cloudinit.sources.DataSourceNoCloud import DataSourceNoCloud
paths = helpers.Paths({"cloud_dir": sys.argv[1], "run_dir": sys.argv[1]})
config = {"datasource": {"NoCloud": {"fs_label": None}}}
source = DataSourceNoCloud(config, None, paths)
found = source._get_data()
print(json.dumps({
    "found": found,
    "instance": source.get_instance_id(),
    "host": source.metadata.get("local-hostname"),
    "config": util.load_yaml(source.userdata_raw),
    "network": source.network_config,
}))
"#;

/// Reads files with cloud-init's reader of YAML.
const READER: &str = r#"
import json, sys
from cloudinit import util
print(json.dumps([util.load_yaml(open(name, "rb").read()) for name in sys.argv[1:]], default=repr))
"#;

#[test]
fn cloud_init_s_schema_has_nothing_against_what_is_written() {
    let Some(cloud_init) = find("cloud-init", "cloud-init") else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("user-data");
    let path = file.to_str().unwrap();
    for settings in [CloudInit::new(), everything(), CloudInit::new().grow_root(false).ntp([])] {
        fs::write(&file, settings.seed(&instance()).unwrap().user_data()).unwrap();
        let said = run(&cloud_init, &["schema", "--config-file", path]);
        assert_eq!(said, format!("Valid cloud-config: {path}\n"));
    }
    fs::write(&file, "#cloud-config\nusers: 3\n").unwrap();
    assert!(
        !output(&cloud_init, &["schema", "--config-file", path]).status.success(),
        "it does look"
    );
}

#[test]
fn other_programs_find_a_sound_volume_with_its_label_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let seed = everything().seed(&instance()).unwrap();
    let image = disk_in(directory.path(), &seed);
    if let Some(mcopy) = find("mcopy", "mtools") {
        for (name, content) in seed.files() {
            assert_eq!(run(&mcopy, &["-i", &image, &format!("::{name}"), "-"]), content);
        }
    }
    if let Some(mlabel) = find("mlabel", "mtools") {
        assert_eq!(run(&mlabel, &["-i", &image, "-s", "::"]).trim(), "Volume label is cidata");
    }
    if let Some(blkid) = find("blkid", "util-linux") {
        let said = run(&blkid, &["--probe", "--output", "export", &image]);
        for line in ["LABEL_FATBOOT=cidata", "LABEL=cidata", "TYPE=vfat", "USAGE=filesystem"] {
            assert!(said.lines().any(|said| said == line), "{line}: {said}");
        }
        assert!(!said.contains("PTTYPE"), "{said}");
    }
    if let Some(fsck) = find("fsck.vfat", "dosfstools") {
        run(&fsck, &["-n", "-V", &image]);
    }
}

#[test]
fn cloud_init_s_own_source_reads_what_was_meant() {
    let (Some(mcopy), Some(cloud_init)) =
        (find("mcopy", "mtools"), find("cloud-init", "cloud-init"))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let seed = everything().seed(&instance()).unwrap();
    let image = disk_in(directory.path(), &seed);
    let folder = directory.path().join("seed/nocloud");
    fs::create_dir_all(&folder).unwrap();
    run(&mcopy, &["-i", &image, "::*", folder.to_str().unwrap()]);
    let read = ask(&cloud_init, SOURCE, &[directory.path().to_str().unwrap()]);
    assert_eq!(read["found"], true);
    assert_eq!(read["instance"], instance().as_str());
    assert_eq!(read["host"], "node.lab.example");
    let config = &read["config"];
    assert_eq!(config["hostname"], "node");
    assert_eq!(config["users"][0], "default");
    assert_eq!(config["users"][1]["ssh_authorized_keys"], json!([PUBLIC]));
    assert_eq!(config["ssh_keys"]["ed25519_public"], PUBLIC);
    assert_eq!(config["packages"][2], json!(["curl", "7.88.1-10+deb12u12"]));
    assert_eq!(config["runcmd"][0], json!(["touch", "/tmp/it is 'ready'"]));
    assert_eq!(config["bootcmd"][0], json!(["true", "yes"]));
    assert_eq!(read["network"]["ethernets"]["eth0"]["match"]["macaddress"], "0a:00:00:00:00:01");
}

#[test]
fn addresses_reach_guests_of_every_kind() {
    let Some(cloud_init) = find("cloud-init", "cloud-init") else { return };
    let directory = tempfile::tempdir().unwrap();
    let seed = everything().seed(&instance()).unwrap();
    let file = directory.path().join("network-config");
    fs::write(&file, seed.network_config().unwrap()).unwrap();
    let kinds = [
        ("eni", "debian", ["address 192.0.2.7/24", "gateway 192.0.2.1", "gateway 2001:db8::1"]),
        (
            "networkd",
            "debian",
            ["MACAddress=0a:00:00:00:00:01", "way=192.0.2.1", "way=2001:db8::1"],
        ),
        ("netplan", "ubuntu", ["set-name: eth0", "way4: 192.0.2.1", "way6: 2001:db8::1"]),
        ("sysconfig", "rocky", ["HWADDR=0a:00:00:00:00:01", "WAY=192.0.2.1", "GW=2001:db8::1"]),
        ("network-manager", "fedora", ["=0A:00:00:00:00:01", "way=192.0.2.1", "way=2001:db8::1"]),
    ];
    let everywhere = ["192.0.2.7", "192.0.2.53", "lab.example", "2001:db8::7", "eth1", "9000"];
    for (kind, distribution, lines) in kinds {
        let out = directory.path().join(kind);
        fs::create_dir(&out).unwrap();
        let (file, out_path) = (file.to_str().unwrap(), out.to_str().unwrap());
        let from = ["devel", "net-convert", "-k", "yaml", "-p", file];
        let to = ["-d", out_path, "-D", distribution, "-O", kind];
        let words = [&from[..], &to].concat();
        run(&cloud_init, &words);
        let rendered = contents(&out);
        for line in lines.iter().chain(&everywhere) {
            assert!(rendered.contains(line), "{kind} has no `{line}`:\n{rendered}");
        }
    }
}

/// The contents of all files below a directory.
fn contents(directory: &Path) -> String {
    let mut found = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = if path.is_dir() { contents(&path) } else { fs::read_to_string(&path).unwrap() };
        found.push_str(&text);
    }
    found
}

#[test]
fn hostile_texts_reach_programs_in_the_guest_as_they_were() {
    let Some(cloud_init) = find("cloud-init", "cloud-init") else { return };
    let texts = hostile_texts(400);
    let mut settings = CloudInit::new();
    for text in &texts {
        settings = settings.command(Command::arguments(["printf", "%s\\0", text]).unwrap());
        if !text.trim().is_empty() {
            settings = settings.boot_command(Command::shell(text.as_str()).unwrap());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("user-data");
    fs::write(&file, settings.seed(&instance()).unwrap().user_data()).unwrap();
    let script = r#"
import json, subprocess, sys
from cloudinit import util
config = util.load_yaml(open(sys.argv[1], "rb").read())
script = util.shellify(config["runcmd"])
printed = subprocess.run(["/bin/sh"], input=script.encode(), stdout=subprocess.PIPE, check=True)
print(json.dumps([printed.stdout.decode().split("\0")[:-1], config["bootcmd"]]))
"#;
    let read = ask(&cloud_init, script, &[file.to_str().unwrap()]);
    assert_eq!(read[0], json!(texts));
    let shell: Vec<&String> = texts.iter().filter(|text| !text.trim().is_empty()).collect();
    assert_eq!(read[1], json!(shell));
}

/// Texts that a reader of YAML could take for something else; the same ones each time.
fn hostile_texts(count: usize) -> Vec<String> {
    let pieces = proptest::sample::select(vec![
        "yes",
        "no",
        "~",
        "null",
        "0o7",
        "0644",
        "1e3",
        "12:30",
        "- ",
        ": ",
        " #",
        "#",
        "\"",
        "'",
        "\\",
        "\n",
        "\r\n",
        "\t",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a",
        "*a",
        "!!x ",
        "|",
        ">",
        "%",
        "@",
        "`",
        "---",
        "<<",
        "=",
        "\u{1}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "\u{9f}",
        "\u{fffe}",
        "\u{10ffff}",
        "$(x)",
        "é",
        "日本",
        "🧬",
        " ",
    ]);
    let strategy = proptest::collection::vec(pieces, 0..8);
    let mut runner = TestRunner::deterministic();
    let text = |_| strategy.new_tree(&mut runner).unwrap().current().concat();
    (0..count).map(text).collect()
}

#[test]
fn a_cloud_config_of_the_user_s_own_means_the_same_after_it_was_merged() {
    let Some(cloud_init) = find("cloud-init", "cloud-init") else { return };
    let own = include_str!("own.yaml");
    let directory = tempfile::tempdir().unwrap();
    let paths = ["own", "merged"].map(|name| directory.path().join(name).display().to_string());
    let settings = CloudInit::new().merge(CloudConfig::new(own).unwrap());
    let seed = settings.seed(&instance()).unwrap();
    assert_eq!(seed.overridden(), []);
    fs::write(&paths[0], own).unwrap();
    fs::write(&paths[1], seed.user_data()).unwrap();
    let read = ask(&cloud_init, READER, &[&paths[0], &paths[1]]);
    let [Value::Object(own), Value::Object(merged)] = &read.as_array().unwrap()[..] else {
        panic!("{read}");
    };
    assert_eq!(own.len(), 10);
    for (key, value) in own {
        assert_eq!(merged.get(key), Some(value), "{key}");
    }
}

#[test]
fn what_cloud_init_writes_of_itself_is_understood() {
    let Some(cloud_init) = find("cloud-init", "cloud-init") else { return };
    // Lets cloud-init keep its own books of a boot, up to a stage, with errors in the last one.
    let script = r#"
import contextlib, io, json, os, sys, types
from cloudinit import helpers
from cloudinit.cmd import main, status
where, errors, last = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
paths = helpers.Paths({"cloud_dir": where, "run_dir": where + "/run"})
status.read_cfg_paths = lambda *_: paths
status.get_bootstatus = lambda *_: (status.UXAppBootStatusCode.ENABLED_BY_GENERATOR, "enabled")
stages = ["init-local", "init", "modules-config", "modules-final"]
for stage in stages[:stages.index(last) + 1]:
    name, _, mode = stage.partition("-") if stage != "init-local" else ("init", "", "")
    found = errors if stage == last else []
    ret = ("DataSourceNoCloud [seed=/dev/xvdb]", found) if name == "init" else found
    args = types.SimpleNamespace(action=(name, lambda *_: ret), local=stage == "init-local", mode=mode)
    main.status_wrapper(name, args, data_d=where + "/data", link_d=where + "/run")
said = io.StringIO()
with contextlib.redirect_stdout(said):
    status.handle_status_args("status", types.SimpleNamespace(wait=False, format="json", long=True))
words = io.StringIO()
with contextlib.redirect_stdout(words):
    status.handle_status_args("status", types.SimpleNamespace(wait=False, format="tabular", long=True))
def read(name):
    path = where + "/run/" + name
    return open(path).read() if os.path.exists(path) else None
print(json.dumps([said.getvalue(), words.getvalue(), read("status.json"), read("result.json")]))
"#;
    let done = Verdict::Done { warnings: vec![] };
    let failed = Verdict::Error { errors: vec!["('scripts-user', RuntimeError('x'))".into()] };
    let running = Verdict::Running { stage: None };
    let cases = [
        ("[]", "modules-final", done),
        (r#"["('scripts-user', RuntimeError('x'))"]"#, "modules-final", failed),
        ("[]", "init", running),
    ];
    for (errors, last, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let read = ask(&cloud_init, script, &[directory.path().to_str().unwrap(), errors, last]);
        let part = |index: usize| read[index].as_str().map(str::as_bytes);
        let empty = Evidence::default();
        let commands = [0, 1].map(|index| Evidence { status_command: part(index), ..empty });
        let files = Evidence { status_file: part(2), result_file: part(3), ..empty };
        for evidence in commands.into_iter().chain([files]) {
            assert_eq!(evidence.verdict().as_ref(), Some(&expected), "{read:#}");
        }
    }
}
