//! Ctrl-C and SIGTERM, sent to the command while it runs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Ended, command};

/// Starts the command, and returns once it has printed a line.
fn start(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

fn send(signal: Signal, child: &Child) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn end(child: Child, mut output: BufReader<std::process::ChildStdout>) -> Ended {
    let mut stdout = String::new();
    output.read_to_string(&mut stdout).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    Ended { stdout, ..ended }
}

#[test]
fn ctrl_c_cancels_the_run_which_is_130() {
    let (child, output) = start(command(["eval", "print('ready') while true do end"]));
    send(Signal::SIGINT, &child);
    assert_eq!(end(child, output), Ended::with(130, "", "error: cancelled\n"));
}

#[test]
fn ctrl_c_cancels_code_that_waits_for_input() {
    let mut waiting = command(["eval", "print('ready') return io.read()"]);
    waiting.stdin(Stdio::piped());
    let (mut child, output) = start(waiting);
    let input = child.stdin.take();
    send(Signal::SIGINT, &child);
    assert_eq!(end(child, output), Ended::with(130, "", "error: cancelled\n"));
    drop(input);
}

#[test]
fn a_cancelled_run_has_its_record() {
    // With `--json` nothing is streamed: the script's standard error is not either, so that the
    // moment at which it runs is told by the log.
    let mut json = command(["-vv", "eval", "--json", "while true do end"]);
    let mut child = json.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = log.lines();
    assert!(lines.any(|line| line.unwrap().contains("run started")));
    send(Signal::SIGINT, &child);
    let rest = std::thread::spawn(move || lines.count());
    let ended = Ended::from(child.wait_with_output().unwrap());
    rest.join().unwrap();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(ended.json()["ended_by"], "cancelled");
}

#[test]
fn sigterm_ends_the_command_at_once_as_143() {
    let (child, output) = start(command(["eval", "print('ready') while true do end"]));
    send(Signal::SIGTERM, &child);
    assert_eq!(end(child, output), Ended::with(143, "", ""));
}

#[test]
fn ctrl_c_ends_a_command_whose_reader_is_stuck() {
    let code = "print('ready') while true do io.write(('x'):rep(4096)) end";
    let (child, output) = start(command(["eval", "--max-output", "unlimited", code]));
    // Nobody reads `output` meanwhile, so that the command cannot write.
    send(Signal::SIGINT, &child);
    send(Signal::SIGTERM, &child);
    let code = child.wait_with_output().unwrap().status.code();
    drop(output);
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

#[test]
fn nothing_of_a_killed_command_lives_on() {
    let (child, _output) = start(command(["eval", "print('ready') while true do end"]));
    let started = descendants(child.id());
    assert!(!started.is_empty());
    send(Signal::SIGKILL, &child);
    child.wait_with_output().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while started.iter().any(|process| is_alive(*process)) {
        assert!(std::time::Instant::now() < deadline, "still there: {started:?}");
        std::thread::yield_now();
    }
}

fn descendants(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let own = children.split_whitespace().map(|number| number.parse::<u32>().unwrap());
    own.flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

fn is_alive(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
