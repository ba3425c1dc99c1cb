//! Help, completions and manual pages.

use crate::support::{below, bioxen, directory, feed};

#[test]
fn the_version_is_that_of_the_package() {
    let ended = bioxen(["--version"]);
    assert_eq!(ended.stdout, format!("bioxen {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_lists_every_command() {
    let help = bioxen(["--help"]).stdout;
    for command in [
        "run",
        "eval",
        "repl",
        "demo",
        "vm",
        "network",
        "pool",
        "sim",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
}

#[test]
fn every_shell_gets_a_script_that_knows_the_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = bioxen(["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(ended.stdout.contains("allow-read"), "{shell}");
    }
}

#[test]
fn the_bash_script_is_accepted_by_bash() {
    let script = bioxen(["completions", "bash"]).stdout;
    let mut check = std::process::Command::new("bash");
    check.args(["-n", "-s"]);
    // It is longer than one argument can be.
    let check = feed(check, script.as_bytes());
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let files = directory(&[]);
    let pages = below(&files, "man/man1");
    let ended = bioxen(["man", &pages]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let written: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(written[1], format!("{pages}/bioxen-run.1"));
    assert!(written.contains(&format!("{pages}/bioxen-pool-add.1").as_str()), "{written:?}");
    let page = std::fs::read_to_string(written[1]).unwrap();
    assert!(page.starts_with(".ie") && page.contains("bioxen\\-run"), "{page}");
}

#[test]
fn pages_that_cannot_be_written_are_1_with_the_directory_s_name() {
    let expected = "error: could not write manual pages to `/proc/nowhere`\n  \
                    caused by: No such file or directory (os error 2)\n  \
                    hint: name a directory that you may write to\n";
    let ended = bioxen(["man", "/proc/nowhere"]);
    assert_eq!(ended, crate::support::Ended::with(1, "", expected));
}
