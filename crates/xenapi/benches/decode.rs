//! Reading what `VM.get_all_records` answers for 10,000 VMs, against serde's own derive.
//!
//! With `PEAK` in the environment it reads once, and tells the most memory that the process had.

mod plain;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;
use std::{env, fs};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use xenapi::wire::{Protocol, decode};
use xenapi::{Map, Ref, class, vm};

const VMS: u32 = 10_000;

type Records = Map<Ref<class::Vm>, vm::Record>;

fn reference(number: u32) -> String {
    format!("OpaqueRef:{number:08x}-ba3e-034e-6b27-5d271af109ba")
}

/// A record with what a VM in use has: disks, interfaces, configuration, operations.
fn record(number: u32) -> vm::Record {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let operations =
        ["snapshot", "changing_dynamic_range", "migrate_send", "pool_migrate", "pause"];
    vm::Record {
        uuid: reference(number)[10..].to_owned(),
        name_label: format!("assembler-{number}"),
        name_description: "Assembles what the sequencers send".into(),
        power_state: "Running".into(),
        allowed_operations: operations.iter().map(|name| (*name).into()).collect(),
        memory_static_max: 4 << 30,
        memory_dynamic_max: 4 << 30,
        memory_dynamic_min: 4 << 30,
        memory_static_min: 1 << 30,
        vcpus_max: 4,
        vcpus_at_startup: 4,
        vbds: (0..3).map(|disk| reference(number ^ disk << 28).as_str().into()).collect(),
        vifs: vec![reference(number).as_str().into()],
        consoles: vec![reference(number).as_str().into()],
        resident_on: reference(1).as_str().into(),
        affinity: reference(1).as_str().into(),
        metrics: reference(number).as_str().into(),
        guest_metrics: reference(number).as_str().into(),
        platform: map(&[
            ("timeoffset", "0"), ("nx", "true"), ("acpi", "1"), ("apic", "true"), ("pae", "true"),
            ("hpet", "true"), ("viridian", "false"), ("cores-per-socket", "1"), ("secureboot", "false"),
            ("device-model", "qemu-upstream-compat"),
        ]),
        other_config: map(&[
            ("base_template_name", "Debian Trixie 13"), ("mac_seed", "0165f154-ba3e-034e-6b27-5d271af109ba"),
            ("install-methods", "cdrom,nfs,http,ftp"), ("linux_template", "true"), ("import_task", &reference(7)),
        ]),
        hvm_boot_params: map(&[("order", "cdn"), ("firmware", "uefi")]),
        bios_strings: map(&[
            ("bios-vendor", "Xen"), ("bios-version", ""), ("system-manufacturer", "Xen"),
            ("system-product-name", "HVM domU"), ("hp-rombios", ""), ("oem-1", "Xen"),
        ]),
        last_boot_cpu_flags: map(&[
            ("vendor", "AuthenticAMD"),
            ("features", "178bfbff-f6f83203-2e500800-040001f3-0000000f-219c03a9-00400004-00000000-00001000"),
        ]),
        recommendations: "<restrictions><restriction field=\"memory-static-max\" max=\"1649267441664\"/>\
             <restriction field=\"vcpus-max\" max=\"32\"/><restriction property=\"number-of-vbds\" max=\"255\"/>\
             </restrictions>".into(),
        tags: vec!["owner:lab-7".into(), "genomics".into()],
        ..Default::default()
    }
}

fn answer() -> Vec<u8> {
    let mut text = String::from("{\"jsonrpc\":\"2.0\",\"result\":{");
    for number in 0..VMS {
        let comma = if number == 0 { "" } else { "," };
        let record = serde_json::to_string(&record(number)).expect("records can be written");
        let _ = write!(text, "{comma}\"{}\":{record}", reference(number));
    }
    text += "},\"id\":1}";
    text.into_bytes()
}

fn benches(criterion: &mut Criterion) {
    let body = answer();
    eprintln!("{VMS} records in {} MB", body.len() / 1_000_000);
    if env::var_os("PEAK").is_some() {
        let before = peak();
        let records = decode::<Records>(Protocol::JsonRpc2, body).expect("it is an answer");
        let records = records.expect("the server did not fail");
        eprintln!("peak {before} MB before, {} MB with {} records", peak(), records.len());
        return;
    }
    let mut group = criterion.benchmark_group("get_all_records");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    group.bench_function("serde_derive", |bencher| {
        bencher.iter_batched(
            || body.clone(),
            |body| {
                serde_json::from_slice::<plain::Answer>(black_box(&body)).expect("it is an answer")
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("xenapi", |bencher| {
        bencher.iter_batched(
            || body.clone(),
            |body| decode::<Records>(Protocol::JsonRpc2, black_box(body)).expect("it is an answer"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The most memory that this process has had, in megabytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
    kib / 1000
}

criterion_group!(decoding, benches);
criterion_main!(decoding);
