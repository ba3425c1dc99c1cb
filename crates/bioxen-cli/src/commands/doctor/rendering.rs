//! The findings for a person.

use std::time::Duration;

use super::findings::{BasicFinding, Findings, MechanismFinding, TypeFinding};
use crate::{shown, table};

/// All findings, section by section.
pub(super) fn text(findings: &Findings) -> String {
    let kernel = findings.kernel.as_deref().map(|kernel| format!(", kernel {kernel}"));
    let title = format!("BioXen {} on {}", findings.version, findings.platform);
    let sections = [
        ("Types of VM", types(findings)),
        ("Isolation of a basic VM", isolation(&findings.basic)),
        ("Interpreters", interpreters(findings)),
        ("Places", places(findings)),
    ];
    let shown = sections.into_iter().filter(|(_, entries)| !entries.is_empty());
    let shown = shown.map(|(title, entries)| format!("\n{title}\n{}", table::list(entries)));
    format!("{title}{}\n{}", kernel.unwrap_or_default(), shown.collect::<Vec<_>>().concat())
}

fn types(findings: &Findings) -> Vec<[String; 2]> {
    let type_entry = |vm_type: &TypeFinding| {
        let what = match vm_type {
            TypeFinding { name: "basic", .. } => basic(&findings.basic),
            TypeFinding { built_in: true, .. } => {
                "built in; `bioxen pool check` tries a pool".to_owned()
            }
            TypeFinding { built_in: false, .. } => "not in this build".to_owned(),
        };
        [vm_type.name.to_owned(), what]
    };
    findings.vm_types.iter().map(type_entry).collect()
}

fn basic(basic: &BasicFinding) -> String {
    let time = |us: Option<u64>| shown::or_dash(us.map(Duration::from_micros), shown::duration);
    match &basic.problem {
        None => {
            let (first, median) = (time(basic.first_vm_us), time(basic.median_vm_us));
            format!("works: a new VM answers after {median}, the first one after {first}")
        }
        Some(problem) => {
            let hint = basic.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            format!("does not work here: {problem}{}", hint.unwrap_or_default())
        }
    }
}

fn isolation(basic: &BasicFinding) -> Vec<[String; 2]> {
    let entry = |finding: &MechanismFinding| {
        let state = match (&finding.reason, finding.how_to_get) {
            _ if finding.active => "active".to_owned(),
            (reason, how) => format!(
                "missing: {}\nto get it: {}",
                reason.as_deref().unwrap_or("nobody knows why"),
                how.unwrap_or_default()
            ),
        };
        [finding.mechanism.to_string(), state]
    };
    basic.isolation.iter().map(entry).collect()
}

fn interpreters(findings: &Findings) -> Vec<[String; 2]> {
    let found = findings.interpreters.iter().map(|found| {
        let program = found.program.as_ref().map(|path| format!(" ({})", path.display()));
        [found.name.clone(), format!("{}{}", found.version, program.unwrap_or_default())]
    });
    let missing = findings.missing_interpreters.iter();
    let missing = missing
        .map(|missing| [missing.name.to_owned(), format!("not found; {}", missing.how_to_get)]);
    found.chain(missing).collect()
}

fn places(findings: &Findings) -> Vec<[String; 2]> {
    let worker = findings.worker_program.iter();
    let worker = worker.map(|program| ["worker".to_owned(), program.display().to_string()]);
    let directories = findings.directories.iter().map(|(kept, directory)| {
        let note = if directory.exists { "" } else { " (not there yet)" };
        [(*kept).to_owned(), format!("{}{note}", directory.path.display())]
    });
    let none = findings.directories.is_empty().then(|| {
        let what = "neither BIOXEN_HOME nor HOME is set, so no history is kept";
        ["history".to_owned(), what.to_owned()]
    });
    worker.chain(directories).chain(none).collect()
}
