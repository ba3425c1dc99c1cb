//! Ways into VMs: by a jump host, by the keys of an agent, and to where a guest has called from.

use bioxen_xcp::ssh::ClientKey;
use tokio::runtime::Runtime;
use xenapi_sim::guest::GuestFault;

use crate::agent::Agent;
use crate::server::server;
use crate::sim::{Home, client};
use crate::support::{Ended, below, command, directory, has};
use crate::vm::{TEMPLATE, home, stranger};

/// Adds lines to the user's configuration.
fn configure(home: &Home, lines: &str) {
    let path = home.path("config/config.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before + lines).unwrap();
}

#[test]
fn vms_are_used_by_way_of_a_jump_host() {
    let Some(jump) = server() else { return };
    let home = home("1");
    let path = home.path("config/config.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let with = |host_key: &dyn std::fmt::Display| {
        std::fs::write(&path, &before).unwrap();
        let (user, port, key) = (jump.user(), jump.port(), jump.write_key());
        configure(
            &home,
            &format!(
                "\n[pools.sim.ssh]\njump = \"{user}@127.0.0.1:{port}\"\nhost_key = \"{host_key}\"\n\
             identity = \"file:{}\"\n",
                key.display()
            ),
        );
    };
    let logins = || jump.log().matches("Accepted publickey").count();
    with(jump.host_key());
    home.create("gc", &[]);
    assert_eq!(logins(), 1);
    assert_eq!(home.answer("gc"), "42\n");
    assert_eq!(logins(), 3, "one to wait, and one to run");
    let files = directory(&[("genome.fasta", ">a\nGATTACA\n")]);
    home.done(&["copy", &below(&files, "genome.fasta"), "gc:"]);
    assert_eq!(logins(), 4);
    if has("ssh") {
        let read = home.vm(&["ssh", "gc", "--", "cat", "genome.fasta"]);
        assert_eq!(read, Ended::well(">a\nGATTACA\n"));
        assert_eq!(logins(), 5);
    }

    let other = ClientKey::generate("other").public();
    with(&other);
    let (code, said) = home.refused(&["vm", "copy", "gc:genome.fasta", &below(&files, "b")]);
    assert!(code == 5 && said.contains("the jump host was not entered"), "{code}: {said}");
    assert!(said.contains(&other.fingerprint().to_string()) && said.contains("host_key"), "{said}");
    if has("ssh") {
        let read = home.vm(&["ssh", "gc", "--", "cat", "genome.fasta"]);
        assert_eq!((read.code, read.stdout.as_str()), (Some(255), ""), "{read:?}");
    }
    with(&"SHA256:abc");
    let (_, said) = home.refused(&["vm", "list"]);
    assert!(said.contains("pool `sim` has a jump host that is none"), "{said}");
}

#[test]
fn an_adopted_vm_can_be_entered_by_the_keys_of_an_agent() {
    if !(has("ssh-agent") && has("ssh-add")) {
        return;
    }
    let home = home("1");
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let pair = ClientKey::generate("test");
    write_private(&key, pair.to_openssh().expose());
    std::fs::write(key.with_extension("pub"), format!("{}\n", pair.public())).unwrap();
    stranger(&home, &key);
    let agent = Agent::start(Some(&key));
    std::fs::remove_file(&key).unwrap();
    let run = |arguments: &[&str]| -> Ended {
        let mut command = command(arguments);
        command.env("BIOXEN_HOME", home.path("")).env("SSH_AUTH_SOCK", &agent.socket);
        command.output().unwrap().into()
    };
    let adopt = ["vm", "adopt", "stranger", "--name", "mine", "--user", "ada", "--agent"];
    let adopted = run(&[&adopt[..], &["--trust-on-first-use", "--json"]].concat());
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
    assert_eq!(run(&["vm", "exec", "mine", "return 6 * 7"]), Ended::well("42\n"));
    if has("ssh") {
        assert_eq!(run(&["vm", "ssh", "mine", "--", "echo", "in"]), Ended::well("in\n"));
    }
    let mut without = command(["vm", "exec", "mine", "return 1"]);
    without.env("BIOXEN_HOME", home.path("")).env_remove("SSH_AUTH_SOCK");
    let without = Ended::from(without.output().unwrap());
    assert!(without.stderr.contains("SSH_AUTH_SOCK is not set"), "{without:?}");
    assert_eq!(run(&["vm", "forget", "mine"]).code, Some(0));
}

fn write_private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_vm_whose_guest_has_no_tools_is_used_at_the_address_that_it_called_from() {
    let home = home("1");
    Runtime::new().unwrap().block_on(async {
        let client = client(&home).await;
        let template = client.vm().get_by_name_label(TEMPLATE).await.unwrap().remove(0);
        let faults = [(GuestFault::KEY.to_owned(), "no-tools".to_owned())];
        client.vm().set_xenstore_data(&template, &faults.into_iter().collect()).await.unwrap();
        client.close().await.unwrap();
    });
    let made = home.create("gc", &["--call-home", "127.0.0.1"]);
    assert_eq!(made["ready"], true);
    let shown = home.done(&["show", "gc"]);
    assert_eq!(
        (&shown["address_known_by"], &shown["address"]),
        (&"call_home".into(), &made["address"])
    );
    assert_eq!(home.answer("gc"), "42\n");
    home.done(&["stop", "gc", "--force"]);
    home.done(&["start", "gc"]);
    assert_eq!(home.answer("gc"), "42\n", "it is where it was");
    let (code, said) =
        home.refused(&["vm", "create", "x", "--call-home", "127.0.0.1", "--no-wait"]);
    assert!(code == 2 && said.contains("cannot be used with"), "{code}: {said}");
    let (code, said) = home.refused(&["vm", "create", "x", "--call-home", "lab"]);
    assert!(code == 2 && said.contains("10.0.0.5:8740"), "{code}: {said}");
}
