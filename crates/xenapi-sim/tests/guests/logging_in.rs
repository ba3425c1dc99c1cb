//! Who gets in, and how the server is known.

use bioxen_testkit::block_on;
use xenapi_sim::driver::Order;
use xenapi_sim::guest::{GuestFault, ProcessOptions};

use crate::rig::{Client, Rig, complaint, has_ssh, printed};

#[test]
fn a_key_of_the_seed_gets_in_and_no_other() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        assert_eq!(printed(&client.ssh(address, "lua", &["echo $USER $HOME"])), "lua /home/lua\n");
        let refused = client.ssh_with_key(address, "lua", "other", &["true"]);
        assert!(complaint(&refused).contains("Permission denied"));
        let refused = client.ssh(address, "nobody-there", &["true"]);
        assert!(complaint(&refused).contains("Permission denied"));
    });
}

#[test]
fn the_host_key_of_the_seed_is_the_one_that_is_shown() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        printed(&client.ssh(address, "lua", &["true"]));
        rig.order(&booted, Order::PowerOff).await;

        rig.guests.set_faults(booted.vm, [GuestFault::WrongHostKey].into());
        let seed = rig.seed(&client.user_data(""), &[]);
        let mut booted = rig.boot_machine(Rig::machine(booted.vm, seed)).await;
        let address = booted.address().await;
        let refused = complaint(&client.ssh(address, "lua", &["true"]));
        assert!(refused.contains("Host key verification failed"), "{refused}");
    });
}

#[test]
fn root_is_told_whom_to_log_in_as_unless_the_seed_lets_it_in() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        for (more, code) in [("", 142), ("disable_root: false\n", 0)] {
            let keys = format!("ssh_authorized_keys: [{}]\n{more}", client.public_key());
            let mut booted = rig.boot(&client.user_data(&keys)).await;
            let address = booted.address().await;
            let output = client.ssh(address, "root", &["echo in"]);
            assert_eq!(output.status.code(), Some(code));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains(if code == 0 { "in\n" } else { "Please login as the user" }),
                "{text}"
            );
        }
    });
}

#[test]
fn a_password_gets_in_where_the_seed_allows_it() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        for (allowed, gets_in) in [("yes", true), ("no", false)] {
            let more = format!(
                "ssh_pwauth: {allowed}\nchpasswd:\n  expire: false\n  users:\n  - \
                                {{name: lua, password: open sesame, type: text}}\n"
            );
            let mut booted = rig.boot(&client.user_data(&more)).await;
            let address = booted.address().await;
            let script = client.path("askpass");
            std::fs::write(&script, "#!/bin/sh\necho 'open sesame'\n").unwrap();
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&script, executable).unwrap();
            // Passwords are set after the server answers, as on a real machine.
            crate::rig::printed(&client.ssh(address, "lua", &["cloud-init status --wait"]));
            let mut command = client.command(address, "lua", "other", &["echo in"]);
            command.args(["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]);
            let mut first = std::process::Command::new("ssh");
            // Options that come first win.
            first.args(["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]);
            first.args(command.get_args().take_while(|word| *word != "echo in"));
            first.arg("echo in").env("SSH_ASKPASS", &script).env("SSH_ASKPASS_REQUIRE", "force");
            let output = first.stdin(std::process::Stdio::null()).output().unwrap();
            assert_eq!(output.status.success(), gets_in, "{output:?}");
        }
    });
}

#[test]
fn a_server_that_refuses_or_stalls_does_so() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let options =
            |fault| ProcessOptions { faults: [fault].into(), ..ProcessOptions::default() };
        let rig = Rig::with(options(GuestFault::SshRefuses));
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        assert!(complaint(&client.ssh(address, "lua", &["true"])).contains("refused"));

        let rig = Rig::with(options(GuestFault::SshStalls));
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let mut stream =
            tokio::net::TcpStream::connect((address, rig.guests.ssh_port())).await.unwrap();
        let wait = std::time::Duration::from_millis(300);
        let read = tokio::io::AsyncReadExt::read_u8(&mut stream);
        assert!(tokio::time::timeout(wait, read).await.is_err(), "nothing comes");
    });
}
