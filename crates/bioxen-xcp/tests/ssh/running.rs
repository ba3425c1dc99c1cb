//! Programs in the guest: what they are given, what they say, and how they end.

use std::time::Duration;

use bioxen_xcp::ssh::{Command, Connection, Exit, Group, Happening, Signal, SshError};

use crate::server::{Server, runs, server, server_with};

const DEADLINE: Duration = Duration::from_mins(1);
const MEBIBYTE: usize = 1 << 20;

async fn connect() -> Option<(Server, Connection)> {
    let server = server()?;
    let connection = Connection::open(&server.target()).await.unwrap();
    Some((server, connection))
}

fn shell(script: &str) -> Command {
    Command::new("/bin/sh").arguments(["-c", script])
}

#[tokio::test]
async fn a_program_s_exit_code_and_signal_come_back() {
    let Some((_server, connection)) = connect().await else { return };
    let exit =
        async |command: Command| connection.run(&command, "", 1000, DEADLINE).await.unwrap().exit;
    assert_eq!(exit(Command::new("true")).await, Exit::Code(0));
    assert_eq!(exit(shell("exit 7")).await, Exit::Code(7));
    assert_eq!(exit(shell("kill -TERM $$")).await, Exit::Signal("TERM".into()));
    assert_eq!(exit(shell("kill -SEGV $$")).await, Exit::Signal("SEGV".into()));
    let missing = connection.run(&Command::new("/no/such"), "", 1000, DEADLINE).await.unwrap();
    assert_eq!(missing.exit, Exit::Code(127));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains("/no/such") && !said.contains("bioxen-group"), "{said}");
}

#[tokio::test]
async fn words_variables_and_directory_arrive_as_they_are() {
    let Some((_server, connection)) = connect().await else { return };
    let hostile = "'; echo hurt; $(id) `id` \\ ! \" \n*";
    let command = Command::new("printf").arguments(["%s|", hostile, "", "-n"]);
    let output = connection.run(&command, "", 1000, DEADLINE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{hostile}||-n|"));
    let command = shell("printf '%s %s' \"$A\" \"$PWD\"").variable("A", hostile).directory("/tmp");
    let output = connection.run(&command, "", 1000, DEADLINE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{hostile} /tmp"));
    let error = connection.start(&Command::new("echo").argument("a\0b")).await.err().unwrap();
    assert!(matches!(error, SshError::Command { .. }), "{error}");
}

#[tokio::test]
async fn output_and_error_stay_apart_and_are_cut_at_the_limit() {
    let Some((_server, connection)) = connect().await else { return };
    let command = shell("echo out; echo err >&2; echo more; exit 3");
    let output = connection.run(&command, "", 1000, DEADLINE).await.unwrap();
    assert_eq!((output.stdout, output.stderr), (b"out\nmore\n".to_vec(), b"err\n".to_vec()));
    assert!(!output.cut);
    let output = connection.run(&command, "", 5, DEADLINE).await.unwrap();
    assert_eq!((output.stdout, output.cut), (b"out\nm".to_vec(), true));
}

#[tokio::test]
async fn twenty_megabytes_go_in_and_come_back() {
    let Some((_server, connection)) = connect().await else { return };
    let sent: Vec<u8> = (0..=250).cycle().take(20 * MEBIBYTE).collect();
    let limit = 21 * MEBIBYTE;
    let output = connection.run(&Command::new("cat"), sent.clone(), limit, DEADLINE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert!(output.stdout == sent, "{} bytes came back", output.stdout.len());
}

#[tokio::test]
async fn input_that_nobody_reads_ends_with_the_program() {
    let Some((_server, connection)) = connect().await else { return };
    let input = vec![0; 20 * MEBIBYTE];
    let output = connection.run(&shell("exit 5"), input, 10, DEADLINE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(5));
}

#[tokio::test]
async fn input_is_streamed_and_answered_before_it_ends() {
    let Some((_server, connection)) = connect().await else { return };
    let mut execution = connection.start(&Command::new("cat")).await.unwrap();
    let input = execution.input();
    for word in ["one", "two"] {
        input.write(word).await.unwrap();
        assert_eq!(execution.next().await.unwrap(), Happening::Stdout(word.into()));
    }
    input.finish().await.unwrap();
    assert_eq!(execution.next().await.unwrap(), Happening::Ended(Exit::Code(0)));
    assert!(
        execution.input().write("late").await.is_err() || execution.input().finish().await.is_err()
    );
}

/// A program that says its number and that of a child, and then would go on for long.
fn family() -> Command {
    shell("sleep 600 & echo $$ $!; wait")
}

fn numbers(happening: Happening) -> Vec<u32> {
    let Happening::Stdout(data) = happening else { panic!("{happening:?}") };
    let text = String::from_utf8_lossy(&data).into_owned();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_signal_reaches_a_program_and_what_it_started() {
    let Some((_server, connection)) = connect().await else { return };
    let mut execution = connection.start(&family()).await.unwrap();
    let family = numbers(execution.next().await.unwrap());
    assert_eq!(execution.group().map(Group::number), Some(family[0]));
    assert!(family.iter().all(|&process| runs(process)));
    execution.signal(Signal::Terminate).await.unwrap();
    assert_eq!(execution.next().await.unwrap(), Happening::Ended(Exit::Signal("TERM".into())));
    assert!(!family.iter().any(|&process| runs(process)));
}

#[tokio::test]
async fn a_dropped_program_is_ended_with_what_it_started() {
    let Some((_server, connection)) = connect().await else { return };
    let mut execution = connection.start(&family()).await.unwrap();
    let family = numbers(execution.next().await.unwrap());
    drop(execution);
    // Closing waits for what is being cleaned up.
    connection.close().await;
    assert!(!family.iter().any(|&process| runs(process)));
}

/// OpenSSH does not heed signals over SSH where root logs in.
#[tokio::test]
async fn a_program_of_root_s_is_ended_like_any_other() {
    // A server that says more would say it on the program's standard error, too.
    let Some(server) = server_with("LogLevel INFO") else { return };
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can log in as root here");
    }
    let connection = Connection::open(&server.target_as("root")).await.unwrap();
    let mut execution = connection.start(&family()).await.unwrap();
    let processes = numbers(execution.next().await.unwrap());
    execution.signal(Signal::Kill).await.unwrap();
    assert_eq!(execution.next().await.unwrap(), Happening::Ended(Exit::Signal("KILL".into())));
    assert!(!processes.iter().any(|&process| runs(process)));
    let mut execution = connection.start(&family()).await.unwrap();
    let processes = numbers(execution.next().await.unwrap());
    drop(execution);
    connection.close().await;
    assert!(!processes.iter().any(|&process| runs(process)));
}

#[tokio::test]
async fn a_channel_too_many_is_refused_and_the_others_go_on() {
    let Some(server) = server_with("MaxSessions 1") else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    let mut first = connection.start(&Command::new("cat")).await.unwrap();
    let error = connection.start(&Command::new("true")).await.err().unwrap();
    assert!(matches!(error, SshError::Refused { .. }), "{error}");
    assert!(error.hint().contains("MaxSessions"));
    let input = first.input();
    input.write("on").await.unwrap();
    assert_eq!(first.next().await.unwrap(), Happening::Stdout("on".into()));
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_and_named() {
    let Some((_server, connection)) = connect().await else { return };
    let deadline = Duration::from_millis(300);
    let error = connection.run(&Command::new("sleep").argument("600"), "", 10, deadline).await;
    let error = error.unwrap_err();
    let SshError::Timeout { waiting_for, after, .. } = &error else { panic!("{error}") };
    assert_eq!((waiting_for.as_str(), *after), ("`sleep` to end", deadline));
}
