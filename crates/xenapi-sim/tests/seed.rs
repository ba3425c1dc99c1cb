//! Seeds on volumes that other programs made, and on ones that nobody should have made.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use xenapi_sim::guest::{Seed, SeedError, UserData, read_seed};

const CONFIG: &str = "#cloud-config\nhostname: node\nusers:\n- name: lua\n";

fn run(program: &str, words: &[&str], file: &Path) {
    let output = Command::new(program).args(words).arg(file).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A volume made by `mkfs.vfat` and filled by `mcopy`; `None` where these are not installed.
fn made_by_others(sectors: &str, files: &[(&str, &str)]) -> Option<Vec<u8>> {
    let found = |program: &str| Command::new(program).arg("-V").output().is_ok();
    if !found("mcopy") || !found("mkfs.vfat") {
        eprintln!("skipped: there is no `mkfs.vfat` or `mcopy` here (Debian: dosfstools, mtools)");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("seed.img");
    let file = fs::File::create(&image).unwrap();
    file.set_len(512 * sectors.parse::<u64>().unwrap()).unwrap();
    run("mkfs.vfat", &["-n", "CIDATA"], &image);
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
        let source = directory.path().join(name);
        let words = ["-i", image.to_str().unwrap(), source.to_str().unwrap()];
        let output = Command::new("mcopy").args(words).arg("::").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(fs::read(&image).unwrap())
}

/// A volume made by the crate `fatfs`.
fn image(files: &[(&str, &str)]) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; 1 << 20]);
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"cidata     ");
    fatfs::format_volume(&mut image, options).unwrap();
    let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for (name, contents) in files {
        volume.root_dir().create_file(name).unwrap().write_all(contents.as_bytes()).unwrap();
    }
    volume.unmount().unwrap();
    image.into_inner()
}

fn read(files: &[(&str, &str)]) -> Result<Seed, SeedError> {
    read_seed(Cursor::new(image(files)))
}

#[test]
fn a_seed_made_by_mtools_is_read() {
    for sectors in ["2048", "20480", "204800"] {
        let meta = "instance-id: 8f2\nlocal-hostname: first\n";
        let files = [("user-data", CONFIG), ("meta-data", meta)];
        let Some(image) = made_by_others(sectors, &files) else { return };
        let seed = read_seed(Cursor::new(image)).unwrap();
        assert_eq!(seed.instance_id, "8f2");
        assert_eq!(seed.local_hostname.as_deref(), Some("first"));
        let UserData::Config(config) = &seed.user_data else { panic!("{seed:?}") };
        assert_eq!(config.hostname.as_deref(), Some("node"));
        assert_eq!(config.users[0].name, "lua");
    }
}

#[test]
fn a_seed_without_both_files_is_none() {
    let error = read(&[("user-data", CONFIG)]).unwrap_err();
    assert!(matches!(error, SeedError::Missing { name: "meta-data" }), "{error}");
    let error = read(&[("meta-data", "instance-id: 1\n")]).unwrap_err();
    assert!(matches!(error, SeedError::Missing { name: "user-data" }), "{error}");
}

#[test]
fn a_network_configuration_that_says_nothing_spoils_the_seed() {
    for nothing in ["", "# only a comment\n"] {
        let files =
            [("user-data", CONFIG), ("meta-data", "instance-id: 1\n"), ("network-config", nothing)];
        let error = read(&files).unwrap_err();
        assert!(matches!(error, SeedError::Unusable { name: "network-config", .. }), "{error}");
    }
}

#[test]
fn user_data_that_cannot_be_read_is_a_warning() {
    for bad in ["#cloud-config\n[", "#cloud-config\nusers: {\n", "hello", "#cloud-config\n- a\n"] {
        let seed = read(&[("user-data", bad), ("meta-data", "instance-id: 1\n")]).unwrap();
        assert_eq!(seed.user_data, UserData::Nothing);
        assert_eq!(seed.warnings.len(), 1, "{bad:?}: {:?}", seed.warnings);
    }
}

#[test]
fn a_script_is_kept_as_it_is() {
    let script = "#!/bin/sh\necho hi\n";
    let seed = read(&[("user-data", script), ("meta-data", "")]).unwrap();
    assert_eq!(seed.user_data, UserData::Script(script.into()));
}

#[test]
fn a_volume_with_another_label_is_no_seed() {
    let mut image = image(&[("user-data", CONFIG), ("meta-data", "")]);
    while let Some(at) = image.windows(6).position(|bytes| bytes == b"cidata") {
        image[at..at + 6].copy_from_slice(b"config");
    }
    let error = read_seed(Cursor::new(image)).unwrap_err();
    assert!(error.to_string().contains("`config`"), "{error}");
}

proptest! {
    #[test]
    fn no_damage_makes_the_reader_panic(
        damage in proptest::collection::vec((0_usize..64 * 512, any::<u8>()), 1..40),
    ) {
        let mut image = image(&[("user-data", CONFIG), ("meta-data", "instance-id: 1\n")]);
        for (at, byte) in damage {
            image[at] = byte;
        }
        let _ = read_seed(Cursor::new(image));
    }

    #[test]
    fn no_user_data_makes_the_reader_panic(text in ".{0,200}") {
        let _ = read(&[("user-data", &format!("#cloud-config\n{text}")), ("meta-data", &text)]);
    }
}
