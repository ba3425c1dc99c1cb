//! Commands, terminals and files.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Instant;

use bioxen_testkit::block_on;

use crate::rig::{Client, Rig, has_ssh, noise, printed};

/// A guest that is ready, and a client for it.
async fn ready() -> (Rig, Client, std::net::Ipv4Addr) {
    let rig = Rig::new();
    let client = Client::new(rig.guests.ssh_port());
    let mut booted = rig.boot(&client.user_data("")).await;
    let address = booted.address().await;
    (rig, client, address)
}

#[test]
fn a_commands_output_errors_and_exit_code_come_back() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let output = client.ssh(address, "lua", &["echo out; echo err >&2; echo $LC_TEST; exit 7"]);
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "out\npassed on\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
        let output = client.ssh(address, "lua", &["no-such-program"]);
        assert_eq!(output.status.code(), Some(127));
        let output = client.ssh(address, "lua", &["kill -TERM $$"]);
        assert_eq!(output.status.code(), Some(255), "ended by a signal");
    });
}

#[test]
fn input_reaches_a_command_and_ends() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let mut command = client.command(address, "lua", "id", &["tr a-z A-Z; echo done"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        assert_eq!(printed(&child.wait_with_output().unwrap()), "HELLO\ndone\n");
    });
}

#[test]
fn twenty_megabytes_go_up_and_down_by_every_way() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let bytes = noise(20_000_000);
        let (up, down) = (client.path("up"), client.path("down"));
        std::fs::write(&up, &bytes).unwrap();
        let took = |what: &str, start: Instant| eprintln!("{what}: {:?}", start.elapsed());

        let start = Instant::now();
        let mut command = client.command(address, "lua", "id", &["cat > up; cat up"]);
        command.stdin(std::fs::File::open(&up).unwrap());
        assert!(command.output().unwrap().stdout == bytes);
        took("through commands, both ways", start);

        let (local, remote) = (up.display().to_string(), format!("lua@{address}"));
        for program in [&["scp"][..], &["scp", "-O"]] {
            let start = Instant::now();
            let target = format!("{remote}:copy");
            let words: Vec<&str> = program[1..].iter().copied().chain([&*local, &target]).collect();
            printed(&client.transfer(program[0], address, &words).output().unwrap());
            let back = down.display().to_string();
            let words: Vec<&str> = program[1..].iter().copied().chain([&*target, &back]).collect();
            printed(&client.transfer(program[0], address, &words).output().unwrap());
            assert!(std::fs::read(&down).unwrap() == bytes, "{program:?}");
            took(&program.join(" "), start);
        }
    });
}

#[test]
fn sftp_works_on_the_guests_own_files() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let batch = client.path("batch");
        let file = client.path("file");
        std::fs::write(&file, "contents\n").unwrap();
        let text = format!(
            "pwd\nmkdir dir\nput {0} dir/a\nchmod 640 dir/a\nrename dir/a dir/b\nsymlink b dir/link\n\
             ls -l dir\nget dir/link {0}.back\nput {0} /usr/local/bin/tool\nrm dir/link\nput {0} dir/b\n\
             cd dir\npwd\n-rm missing\n-get /etc/shadow- {0}.x\n",
            file.display()
        );
        std::fs::write(&batch, text).unwrap();
        let words = ["-b", batch.to_str().unwrap(), &format!("lua@{address}")];
        let shown = printed(&client.transfer("sftp", address, &words).output().unwrap());
        assert!(shown.contains("/home/lua\n") && shown.contains("/home/lua/dir"), "{shown}");
        assert!(shown.contains("-rw-r-----"), "{shown}");
        assert_eq!(std::fs::read_to_string(client.path("file.back")).unwrap(), "contents\n");
        let seen = client.ssh(address, "lua", &["cat dir/b /usr/local/bin/tool; stat -c %a dir/b"]);
        assert_eq!(printed(&seen), "contents\ncontents\n640\n");
    });
}

#[test]
fn a_shell_has_a_terminal_of_the_clients_size() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let mut command = client.command(address, "lua", "id", &[]);
        command.arg("-tt").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"tty; stty -a | head -1; echo $((6*7)); exit 3\n").unwrap();
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        assert!(shown.contains("/dev/pts/") && shown.contains("42"), "{shown}");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn many_sessions_share_one_connection() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let (_rig, client, address) = ready().await;
        let path = client.path("control");
        let control = format!("ControlPath={}", path.display());
        let master = ["-o", "ControlMaster=yes", "-o", &control, "-N"];
        let mut command = client.command(address, "lua", "id", &[]);
        let mut master = command.args(master).stdin(Stdio::null()).spawn().unwrap();
        bioxen_testkit::wait_until("the master is there", || path.exists());
        let sessions: Vec<_> = (0..10)
            .map(|number| {
                let mut command = client.command(address, "lua", "id", &[]);
                command.args(["-o", &control, &format!("sleep 0.2; echo {number}")]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for (number, session) in sessions.into_iter().enumerate() {
            assert_eq!(printed(&session.wait_with_output().unwrap()), format!("{number}\n"));
        }
        master.kill().unwrap();
        master.wait().unwrap();
    });
}
