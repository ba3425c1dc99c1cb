//! VHD images against `qemu-img`, which we did not write.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use uuid::Uuid;
use xenapi_sim::disk::{
    Disk, DiskDirectory, ImageError, Medium, export_raw, export_vhd, import_vhd,
};
use xenapi_sim::store::DiskId;

fn random() -> DiskId {
    DiskId(Uuid::new_v4())
}

const MIB: u64 = 1 << 20;

fn has_qemu_img() -> bool {
    let found = Command::new("qemu-img").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no `qemu-img` here (Debian: qemu-utils)");
    }
    found
}

#[track_caller]
fn qemu_img(words: &[&str], files: &[&Path]) -> String {
    let output = Command::new("qemu-img").args(words).args(files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A disk with data at its start, across two blocks, in its last sector, and much of nothing.
fn sample(store: &DiskDirectory, size: u64) -> Disk {
    let disk = store.create(random(), size).unwrap();
    disk.write_at(0, b"first").unwrap();
    disk.write_at(2 * MIB - 3, b"across two blocks").unwrap();
    disk.write_at(11 * MIB, &vec![0xa5; 3_000_000]).unwrap();
    disk.write_at(size - 4, b"last").unwrap();
    disk
}

fn raw(disk: &Disk) -> Vec<u8> {
    let mut bytes = Vec::new();
    export_raw(disk, &mut bytes).unwrap();
    bytes
}

fn vhd(disk: &Disk, base: Option<&Disk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let base = base.map(|base| base as &dyn Medium);
    let written = export_vhd(disk, base, &mut bytes).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

#[test]
fn qemu_reads_what_we_write() {
    if !has_qemu_img() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path().join("disks")).unwrap();
    let (image, out) = (directory.path().join("a.vhd"), directory.path().join("a.raw"));
    for size in [64 * MIB, 127 * MIB + 512, 20 * MIB + 1536] {
        let disk = sample(&store, size);
        fs::write(&image, vhd(&disk, None)).unwrap();
        assert!(fs::metadata(&image).unwrap().len() < 20 * MIB, "zeros are left out");
        let info = qemu_img(&["info", "--output=json", "-f", "vpc"], &[&image]);
        assert!(info.contains(&format!("\"virtual-size\": {size}")), "{info}");
        qemu_img(&["convert", "-f", "vpc", "-O", "raw"], &[&image, &out]);
        assert!(fs::read(&out).unwrap() == raw(&disk), "size {size}");
    }
}

#[test]
fn we_read_what_qemu_writes() {
    if !has_qemu_img() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path().join("disks")).unwrap();
    let (source, image) = (directory.path().join("a.raw"), directory.path().join("a.vhd"));
    let original = raw(&sample(&store, 64 * MIB));
    fs::write(&source, &original).unwrap();
    let options = ["convert", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size=on"];
    qemu_img(&options, &[&source, &image]);
    let disk = store.create(random(), 64 * MIB).unwrap();
    disk.write_at(40 * MIB, b"left from before").unwrap();
    assert_eq!(import_vhd(&disk, &*fs::read(&image).unwrap()).unwrap(), 64 * MIB);
    assert!(raw(&disk) == original);
    assert!(disk.allocated().unwrap() < 4 * MIB);
}

#[test]
fn a_difference_brings_the_base_to_what_the_disk_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path()).unwrap();
    let (base, now, copy) = (random(), random(), random());
    let base_disk = store.create(base, 32 * MIB).unwrap();
    base_disk.write_at(MIB, &vec![1; 100_000]).unwrap();
    let disk = store.clone_disk(base, now).unwrap();
    disk.write_at(MIB, &vec![0; 50_000]).unwrap();
    disk.write_at(20 * MIB + 5, b"new").unwrap();
    let difference = vhd(&disk, Some(&base_disk));
    assert!((difference.len() as u64) < 5 * MIB, "only blocks that differ");
    let copy = store.clone_disk(base, copy).unwrap();
    import_vhd(&copy, &*difference).unwrap();
    assert!(raw(&copy) == raw(&disk));
}

#[test]
fn an_image_cut_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path()).unwrap();
    let disk = sample(&store, 16 * MIB);
    let image = vhd(&disk, None);
    let target = store.create(random(), 16 * MIB).unwrap();
    for cut in (0..3000).chain([image.len() - 512, image.len() - 1]) {
        let error = import_vhd(&target, &image[..cut]).unwrap_err();
        assert!(matches!(error, ImageError::Malformed { .. }), "cut at {cut}: {error}");
    }
    import_vhd(&target, &*image).unwrap();
}

#[test]
fn an_image_larger_than_the_disk_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path()).unwrap();
    let image = vhd(&sample(&store, 16 * MIB), None);
    let small = store.create(random(), 8 * MIB).unwrap();
    small.write_at(0, b"kept").unwrap();
    let error = import_vhd(&small, &*image).unwrap_err();
    assert!(matches!(error, ImageError::TooLong { .. }), "{error}");
    assert!(raw(&small).starts_with(b"kept"));
}

#[test]
fn no_change_of_a_byte_in_the_headers_makes_the_reader_panic() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskDirectory::open(directory.path()).unwrap();
    let image = vhd(&sample(&store, 16 * MIB), None);
    let target = store.create(random(), 16 * MIB).unwrap();
    for at in 0..2048 {
        let mut bad = image.clone();
        bad[at] ^= 0x81;
        // Whether it is refused depends on where; that it comes back is what counts.
        let _ = import_vhd(&target, &*bad);
    }
}
