//! The record of a run.

use bioxen::{Digest, EndedBy, Event, Script};
use serde_json::Value as Json;

use super::{Subject, ended, finished};

/// The keys of every record, as JSON.
const KEYS: [&str; 22] = [
    "arguments",
    "backend",
    "code",
    "cpu_time_us",
    "duration_us",
    "ended_by",
    "environment",
    "exit_code",
    "format",
    "fresh",
    "grants",
    "interpreter",
    "isolation",
    "limits",
    "peak_memory_bytes",
    "run",
    "started",
    "state_kept",
    "stderr",
    "stdout",
    "values",
    "vm",
];

/// The keys of a subject's records: VMs that live in virtual machines say in which.
fn all_keys(subject: &Subject, more: &[&'static str]) -> Vec<&'static str> {
    let machine = subject.spec().machine().map(|_| "machine");
    let mut keys: Vec<_> = KEYS.iter().chain(more).copied().chain(machine).collect();
    keys.sort_unstable();
    keys
}

fn keys(json: &Json) -> Vec<&str> {
    let mut keys: Vec<&str> =
        json.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

pub async fn a_record_has_exactly_these_keys(subject: &Subject) {
    let vm = subject.vm().await;
    let script = Script::code("script", "print('x') return 1, {a = 2}").arg("one").arg(b"\xff");
    let run = finished(vm.run(script).await);
    let json = serde_json::to_value(&run.record).expect("a record is data");
    assert_eq!(keys(&json), all_keys(subject, &[]));
    assert_eq!(keys(&json["code"]), ["bytes", "digest", "name"]);
    assert_eq!(keys(&json["grants"]), ["env", "net", "read", "spawn", "write"]);
    assert_eq!(keys(&json["interpreter"]), ["platform", "program", "version"]);
    assert_eq!(keys(&json["isolation"]), ["active", "missing"]);
    let limits = [
        "child_processes",
        "cpu_time_us",
        "memory_bytes",
        "open_files",
        "output_bytes",
        "wall_time_us",
    ];
    assert_eq!(keys(&json["limits"]), limits);
    assert_eq!(keys(&json["stdout"]), ["bytes", "cut"]);
    assert_eq!(json["format"], 1);
    assert_eq!(json["ended_by"], "finished");
    assert_eq!(json["values"], serde_json::json!([1, {"a": 2}]));
    assert_eq!(json["arguments"], serde_json::json!(["one", {"bytes_hex": "ff"}]));
    assert_eq!(json["stdout"], serde_json::json!({"bytes": 2, "cut": false}));
    assert_eq!(json["limits"]["wall_time_us"], 60_000_000);
    assert_eq!(json["vm"], vm.name().as_str());
    let started = json["started"].as_str().expect("a time is text");
    assert!(started.ends_with('Z') && started.contains('T'), "{started}");
}

pub async fn a_record_of_an_error_has_the_error_besides(subject: &Subject) {
    let vm = subject.vm().await;
    let run = ended(vm.eval("error({code = 1})").await, EndedBy::Error);
    let json = serde_json::to_value(&run.record).expect("a record is data");
    assert_eq!(keys(&json), all_keys(subject, &["error"]));
    assert_eq!(keys(&json["error"]), ["message", "traceback", "value"]);
    assert_eq!(json["error"]["value"], serde_json::json!({"code": 1}));
    assert_eq!((&json["ended_by"], &json["exit_code"]), (&"error".into(), &1.into()));
}

pub async fn a_record_of_a_limit_has_its_numbers_besides(subject: &Subject) {
    let vm = subject.vm().await;
    let short = std::time::Duration::from_millis(200);
    let run = ended(vm.eval("while true do end").wall_time(short).await, EndedBy::WallTime);
    let json = serde_json::to_value(&run.record).expect("a record is data");
    for key in ["limit", "peak", "hint"] {
        assert!(json[key].is_string(), "{key} in {json}");
    }
}

pub async fn a_record_says_what_ran_where(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "return _VERSION";
    let one = finished(vm.run(Script::code("named", code)).await);
    let two = finished(vm.run(Script::code("named", code)).await);
    let record = &one.record;
    assert!(record.run < two.record.run, "identities sort by time");
    assert!(record.started <= two.record.started);
    assert_eq!(record.code.digest, Digest::of(code.as_bytes()));
    assert_eq!((record.code.name.as_str(), record.code.bytes), ("named", code.len() as u64));
    let version = &record.context.interpreter.version;
    let spoken = one.value().as_str().expect("a version is text");
    assert!(version.starts_with(spoken) || version.starts_with("LuaJIT"), "{version}, {spoken}");
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    assert_eq!(record.context.interpreter.platform, platform);
    assert!(record.cpu_time.is_some() && record.peak_memory.is_some());
    assert!(record.cpu_time <= Some(record.duration + std::time::Duration::from_millis(50)));
    assert!(!record.context.isolation.active.is_empty());
}

pub async fn a_record_is_told_as_an_event_too(subject: &Subject) {
    let vm = subject.vm().await;
    let mut events = subject.fleet.events();
    let run = finished(vm.eval("return 1").await);
    let Some(Event::RunStarted { run: started, .. }) = events.next().await else {
        panic!("the start is told first")
    };
    assert_eq!(started, run.record.run);
    let Some(Event::RunEnded { record }) = events.next().await else { panic!("then the end") };
    assert_eq!(*record, run.record);
}
