//! `bioxen demo`: everything in it is real, and ends as it says.

use crate::support::{bioxen, command};

const ENDINGS: [(&str, &str, i64); 10] = [
    ("gc-content", "finished", 0),
    ("kmers", "finished", 0),
    ("motifs", "finished", 0),
    ("orfs", "finished", 0),
    ("gc-on-pool", "finished", 0),
    ("kmers-on-pool", "finished", 0),
    ("hog", "memory", 137),
    ("runaway", "wall_time", 124),
    ("snoop", "error", 1),
    ("escapee", "error", 1),
];

#[test]
fn each_vm_has_a_row_with_its_ending_and_what_came_of_it() {
    let ended = bioxen(["demo"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for (vm, ending, code) in ENDINGS {
        let row = ended.stdout.lines().find(|line| line.split(' ').next() == Some(vm)).unwrap();
        let cells: Vec<_> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells[3..5], [ending, &code.to_string()], "{row}");
        let place = if vm.ends_with("on-pool") { "a machine on xcp-01" } else { "a process here" };
        assert_eq!(cells[1], place, "{row}");
    }
    for told in [
        "GC percent: 49.8577",
        "distinct k-mers: 4053",
        "motif GAATTC, reverse complement GAATTC, sites: 5",
        "stopped at its memory limit of 32.0 MiB",
        "--allow-read /etc/passwd",
        "--allow-spawn",
        "The simulated pool has 0 VMs and 7 disks, as before",
        "bioxen repl",
    ] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
}

#[test]
fn it_works_from_any_directory_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = command(["demo", "--json"]);
    let output = demo.current_dir("/").env("TMPDIR", temporary.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn for_a_program_there_is_an_array_of_records() {
    let records = bioxen(["demo", "--json"]).json();
    let endings = records.as_array().unwrap().iter().map(|record| {
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        (text("vm"), text("ended_by"), record["exit_code"].as_i64().unwrap())
    });
    let expected = ENDINGS.map(|(vm, ending, code)| (vm.to_owned(), ending.to_owned(), code));
    assert_eq!(endings.collect::<Vec<_>>(), expected);
    let output = records[3]["output"].as_str().unwrap();
    let expected = crate::support::examples().join("expected/open_reading_frames.txt");
    assert_eq!(output, std::fs::read_to_string(expected).unwrap());
}
