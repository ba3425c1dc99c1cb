//! The repository's examples, run as their pages say.

use crate::support::{Ended, bioxen, examples};

fn runs_as_expected(name: &str) {
    let genome = examples().join("data/lambda.fasta").display().to_string();
    let script = examples().join(format!("{name}.lua")).display().to_string();
    let expected =
        std::fs::read_to_string(examples().join(format!("expected/{name}.txt"))).unwrap();
    let ended = bioxen(["run", "--allow-read", &genome, &script, &genome]);
    assert_eq!(ended, Ended::well(&expected));
}

#[test]
fn gc_content_gives_its_expected_output() {
    runs_as_expected("gc_content");
}

#[test]
fn kmer_counts_gives_its_expected_output() {
    runs_as_expected("kmer_counts");
}

#[test]
fn motif_search_gives_its_expected_output() {
    runs_as_expected("motif_search");
}

#[test]
fn open_reading_frames_gives_its_expected_output() {
    runs_as_expected("open_reading_frames");
}

#[test]
fn an_example_without_its_grant_says_which_one_it_needs() {
    let genome = examples().join("data/lambda.fasta").display().to_string();
    let script = examples().join("gc_content.lua").display().to_string();
    let ended = bioxen(["run", &script, &genome]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains(&format!("--allow-read {genome}")), "{ended:?}");
}
