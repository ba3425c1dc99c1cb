//! What cloud-init says of its own work, read from whatever a guest has of it.
//!
//! Guests differ: `cloud-init status --format json` came with version 22.4, and its words have changed
//! since; older guests have the two files only. All of it is read with the same suspicion, for it comes
//! out of a guest.

use serde_json::{Map, Value};

/// How many lines a verdict has at most.
const MOST_LINES: usize = 10;

/// How long a line is at most, in characters.
const LONGEST_LINE: usize = 400;

/// What was found in a guest. Each part may be missing, cut short or nonsense.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// What `cloud-init status --format json`, or `cloud-init status --long`, printed.
    pub status_command: Option<&'a [u8]>,
    /// `/run/cloud-init/status.json`.
    pub status_file: Option<&'a [u8]>,
    /// `/run/cloud-init/result.json`, which is written at the very end.
    pub result_file: Option<&'a [u8]>,
    /// `/var/log/cloud-init.log`, or its end.
    pub log: Option<&'a [u8]>,
}

/// What became of cloud-init's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has not begun.
    NotStarted,
    /// It is at work.
    Running {
        /// The stage that it is in, such as `modules-config`.
        stage: Option<String>,
    },
    /// It is done.
    Done {
        /// What it complained about, but went on.
        warnings: Vec<String>,
    },
    /// It failed, or a part of it did. It may still be at work on what is left.
    Error {
        /// What it says of that, the first lines first; never empty.
        errors: Vec<String>,
    },
    /// It is switched off in this guest.
    Disabled {
        /// By what, as it says.
        reason: String,
    },
}

impl Verdict {
    /// Whether there is nothing more to wait for.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotStarted | Self::Running { .. } => false,
            Self::Done { .. } | Self::Error { .. } | Self::Disabled { .. } => true,
        }
    }
}

impl Evidence<'_> {
    /// The verdict; `None` when nothing that was found says anything.
    pub fn verdict(&self) -> Option<Verdict> {
        let sights: Vec<Sight> = [
            self.status_command.and_then(of_command),
            self.status_file.and_then(of_status_file),
            self.result_file.and_then(of_result_file),
        ]
        .into_iter()
        .flatten()
        .collect();
        let furthest = sights.iter().map(|sight| sight.state).max()?;
        let lines = |part: fn(&Sight) -> &[String]| {
            let mut lines = Vec::new();
            for line in sights.iter().flat_map(part) {
                add_line(&mut lines, line);
            }
            lines
        };
        let errors = lines(|sight| &sight.errors);
        if furthest == State::Error || !errors.is_empty() {
            return Some(Verdict::Error { errors: self.with_log(errors) });
        }
        let detail = || sights.iter().find_map(|sight| sight.detail.clone());
        Some(match furthest {
            State::NotStarted => Verdict::NotStarted,
            State::Running => {
                Verdict::Running { stage: sights.iter().find_map(|s| s.stage.clone()) }
            }
            State::Disabled => Verdict::Disabled { reason: detail().unwrap_or_default() },
            State::Done => Verdict::Done { warnings: lines(|sight| &sight.warnings) },
            State::Error => Verdict::Error { errors },
        })
    }

    fn with_log(&self, mut errors: Vec<String>) -> Vec<String> {
        for line in self.log.map(complaints).unwrap_or_default() {
            add_line(&mut errors, &line);
        }
        if errors.is_empty() {
            errors.push("cloud-init says that it failed, but not why".into());
        }
        errors
    }
}

/// How far cloud-init is, in the order in which one saying outweighs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    NotStarted,
    Running,
    Disabled,
    Done,
    Error,
}

/// What one part of the evidence says.
#[derive(Debug)]
struct Sight {
    state: State,
    stage: Option<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
    detail: Option<String>,
}

impl Sight {
    fn new(state: State) -> Self {
        Self { state, stage: None, errors: vec![], warnings: vec![], detail: None }
    }
}

fn of_command(printed: &[u8]) -> Option<Sight> {
    let text = String::from_utf8_lossy(printed);
    let object = text.find('{').and_then(|start| first_object(&text[start..]));
    object.as_ref().and_then(of_said).or_else(|| of_words(&text))
}

fn first_object(text: &str) -> Option<Map<String, Value>> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

fn of_said(said: &Map<String, Value>) -> Option<Sight> {
    let word = |key: &str| said.get(key).and_then(Value::as_str);
    let mut sight = Sight::new(state(word("status")?)?);
    sight.errors = texts(said.get("errors"));
    sight.warnings = warnings(said.get("recoverable_errors"));
    sight.detail = word("detail").map(clean);
    if sight.state == State::Running {
        sight.stage = word("stage").or(word("detail").and_then(after_stage)).map(clean);
    }
    Some(sight)
}

/// The answer in words: `status: done`, and when asked for all, `detail:` with its lines. Newer versions
/// list errors apart.
fn of_words(text: &str) -> Option<Sight> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches('.').trim()).collect();
    let after = |key: &str| lines.iter().position(|line| line.starts_with(key));
    let mut sight = Sight::new(state(&lines[after("status:")?]["status:".len()..])?);
    let detail: Vec<&str> = match after("detail:") {
        Some(at) => [&lines[at]["detail:".len()..]]
            .into_iter()
            .chain(lines[at + 1..].iter().copied())
            .collect(),
        None => Vec::new(),
    };
    sight.detail = detail.iter().map(|line| clean(line)).find(|line| !line.is_empty());
    match (sight.state, after("errors:")) {
        (State::Error, Some(at)) => {
            let listed = lines[at + 1..].iter().map_while(|line| line.strip_prefix("- "));
            sight.errors = listed.map(clean).collect();
        }
        (State::Error, None) => {
            sight.errors = detail.into_iter().map(clean).filter(|line| !line.is_empty()).collect();
        }
        (State::Running, _) => {
            sight.stage = sight.detail.as_deref().and_then(after_stage).map(clean);
        }
        (State::NotStarted | State::Disabled | State::Done, _) => {}
    }
    Some(sight)
}

fn after_stage(detail: &str) -> Option<&str> {
    detail.split_once("in stage: ").map(|(_, stage)| stage)
}

fn state(word: &str) -> Option<State> {
    match word.trim() {
        "not run" | "not started" => Some(State::NotStarted),
        "running" | "degraded running" => Some(State::Running),
        "done" | "degraded done" | "degraded" => Some(State::Done),
        "disabled" => Some(State::Disabled),
        word if word.starts_with("error") => Some(State::Error),
        _ => None,
    }
}

fn of_status_file(file: &[u8]) -> Option<Sight> {
    let file: Value = serde_json::from_slice(file).ok()?;
    let v1 = file.get("v1")?.as_object()?;
    let stages: Vec<&Map<String, Value>> = v1.values().filter_map(Value::as_object).collect();
    let has = |stage: &Map<String, Value>, key: &str| {
        stage.get(key).and_then(Value::as_f64).is_some_and(|time| time > 0.0)
    };
    // The file alone cannot tell the end from a pause between two stages.
    let begun = stages.iter().any(|stage| has(stage, "start"));
    let ended = v1
        .get("modules-final")
        .and_then(Value::as_object)
        .is_some_and(|last| has(last, "finished"));
    let mut sight = Sight::new(match (begun, ended) {
        (_, true) => State::Done,
        (true, false) => State::Running,
        (false, false) => State::NotStarted,
    });
    sight.stage = v1.get("stage").and_then(Value::as_str).map(clean);
    for stage in stages {
        sight.errors.extend(texts(stage.get("errors")));
        sight.warnings.extend(warnings(stage.get("recoverable_errors")));
    }
    Some(sight)
}

fn of_result_file(file: &[u8]) -> Option<Sight> {
    let file: Value = serde_json::from_slice(file).ok()?;
    let v1 = file.get("v1")?.as_object()?;
    let mut sight = Sight::new(State::Done);
    sight.errors = texts(v1.get("errors"));
    sight.warnings = warnings(v1.get("recoverable_errors"));
    Some(sight)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(clean).filter(|line| !line.is_empty()).collect()
}

/// Complaints by their weight; what is only going out of use is none.
fn warnings(by_level: Option<&Value>) -> Vec<String> {
    let levels = by_level.and_then(Value::as_object).into_iter().flatten();
    let counts = |level: &str| matches!(level, "WARNING" | "ERROR" | "CRITICAL");
    levels.filter(|(level, _)| counts(level)).flat_map(|(_, list)| texts(Some(list))).collect()
}

/// The lines of a log that complain, and how exceptions ended, in their order.
fn complaints(log: &[u8]) -> Vec<String> {
    let log = String::from_utf8_lossy(log);
    let mut found = Vec::new();
    let mut in_traceback = false;
    for line in log.lines() {
        let complaint = ["[ERROR]: ", "[CRITICAL]: ", "[WARNING]: "]
            .iter()
            .find_map(|level| line.split_once(level))
            .map(|(_, complaint)| complaint);
        let exception = in_traceback && !line.starts_with([' ', '\t']) && !line.is_empty();
        if let Some(complaint) = complaint.or(exception.then_some(line)) {
            add_line(&mut found, complaint);
        }
        in_traceback = (in_traceback && !exception) || line.starts_with("Traceback (");
    }
    found
}

fn add_line(lines: &mut Vec<String>, line: &str) {
    let line = clean(line);
    if lines.len() < MOST_LINES && !line.is_empty() && !lines.contains(&line) {
        lines.push(line);
    }
}

/// A text made one line that can be shown anywhere.
fn clean(text: &str) -> String {
    let fit = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut line: String = text.trim().chars().map(fit).take(LONGEST_LINE).collect();
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(printed: &str) -> Option<Verdict> {
        Evidence { status_command: Some(printed.as_bytes()), ..Evidence::default() }.verdict()
    }

    fn files(status: &str, result: Option<&str>) -> Option<Verdict> {
        let status_file = Some(status.as_bytes());
        Evidence { status_file, result_file: result.map(str::as_bytes), ..Evidence::default() }
            .verdict()
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_command_s_words_of_several_versions_are_understood() {
        let done = Some(Verdict::Done { warnings: vec![] });
        assert_eq!(command(r#"{"status": "done", "errors": [], "detail": "x"}"#), done);
        assert_eq!(command("\n....\nstatus: done\n"), done);
        assert_eq!(command("status: not run\n"), Some(Verdict::NotStarted));
        assert_eq!(command(r#"{"status": "not started"}"#), Some(Verdict::NotStarted));
        let stage = Some("modules-final".into());
        let running = r#"{"status": "running", "detail": "Running in stage: modules-final"}"#;
        assert_eq!(command(running), Some(Verdict::Running { stage: stage.clone() }));
        let running = "status: running\ntime: x\ndetail:\nRunning in stage: modules-final\n";
        assert_eq!(command(running), Some(Verdict::Running { stage }));
        let off = r#"{"status": "disabled", "detail": "Cloud-init disabled by x"}"#;
        let reason = "Cloud-init disabled by x".into();
        assert_eq!(command(off), Some(Verdict::Disabled { reason }));
        let newer = "status: error\nextended_status: error - done\nboot_status_code: x\ndetail: DataSourceNoCloud\n\
            errors:\n\t- ('scripts_user', RuntimeError('x'))\n\t- other\nrecoverable_errors: {}\n";
        let errors = lines(&["('scripts_user', RuntimeError('x'))", "other"]);
        assert_eq!(command(newer), Some(Verdict::Error { errors }));
        for nothing in ["", "{", "cloud-init: command not found", r#"{"status": "odd"}"#, "[]"] {
            assert_eq!(command(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn complaints_make_no_error_unless_cloud_init_says_so() {
        let degraded = r#"{"status": "done", "extended_status": "degraded done", "errors": [],
            "recoverable_errors": {"WARNING": ["no dsa key"], "DEPRECATED": ["old word"]}}"#;
        assert_eq!(command(degraded), Some(Verdict::Done { warnings: lines(&["no dsa key"]) }));
    }

    #[test]
    fn an_error_comes_with_its_lines_and_those_of_the_log() {
        let log = "2026-01-01 - util.py[DEBUG]: fine\n\
            2026-01-01 - util.py[WARNING]: Failed to install packages: ['nope']\n\
            Traceback (most recent call last):\n  File \"x.py\", line 1, in y\n    boom()\n\
            ProcessExecutionError: Exit code: 100\nnot part of it\n";
        let evidence = Evidence {
            status_command: Some(br#"{"status": "error", "errors": ["('package', X())"]}"#),
            log: Some(log.as_bytes()),
            ..Evidence::default()
        };
        let errors = [
            "('package', X())",
            "Failed to install packages: ['nope']",
            "ProcessExecutionError: Exit code: 100",
        ];
        assert_eq!(evidence.verdict(), Some(Verdict::Error { errors: lines(&errors) }));
        let silent = command("status: error\n");
        assert!(matches!(silent, Some(Verdict::Error { errors }) if errors.len() == 1));
    }

    #[test]
    fn the_files_alone_tell_the_stages_apart() {
        let status = |stage: &str, last: &str| {
            format!(
                r#"{{"v1": {{"datasource": null, "stage": {stage},
                "init-local": {{"start": 1.5, "finished": 2.5, "errors": []}},
                "modules-final": {{"start": {last}, "finished": {last}, "errors": []}}}}}}"#
            )
        };
        let running = files(&status(r#""init""#, "null"), None);
        assert_eq!(running, Some(Verdict::Running { stage: Some("init".into()) }));
        assert_eq!(files(&status("null", "null"), None), Some(Verdict::Running { stage: None }));
        let result = r#"{"v1": {"datasource": "x", "errors": []}}"#;
        let done = Some(Verdict::Done { warnings: vec![] });
        assert_eq!(files(&status("null", "3.5"), Some(result)), done);
        assert_eq!(files(&status("null", "3.5"), Some("{\"v1\"")), done);
        let failed = r#"{"v1": {"errors": ["('runcmd', 'x')"]}}"#;
        let errors = lines(&["('runcmd', 'x')"]);
        assert_eq!(files(&status("null", "3.5"), Some(failed)), Some(Verdict::Error { errors }));
    }

    proptest! {
        #[test]
        fn no_evidence_makes_it_panic_or_long(
            parts in proptest::collection::vec(proptest::option::of(evidence()), 4),
        ) {
            let part = |index: usize| parts[index].as_deref();
            let verdict = Evidence {
                status_command: part(0),
                status_file: part(1),
                result_file: part(2),
                log: part(3),
            }
            .verdict();
            if let Some(Verdict::Error { errors: lines } | Verdict::Done { warnings: lines }) = verdict {
                prop_assert!(lines.len() <= MOST_LINES);
                prop_assert!(lines.iter().all(|line| line.chars().count() <= LONGEST_LINE));
                prop_assert!(!lines.iter().any(|line| line.contains(char::is_control)));
            }
        }
    }

    /// Bytes, texts and things that look like reports.
    fn evidence() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("status: "),
            Just("error"),
            Just("done"),
            Just("running"),
            Just("{\"v1\":"),
            Just("\"status\":"),
            Just("\"errors\":"),
            Just("[\"a\\nb\"]"),
            Just("{"),
            Just("}"),
            Just(","),
            Just("\n"),
            Just("Traceback ("),
            Just("x[ERROR]: y"),
            Just("detail:"),
            Just("\"recoverable_errors\":{\"WARNING\":[\"w\"]}"),
            Just("1e999"),
            Just("null"),
        ];
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(word, 0..30).prop_map(|words| words.concat().into_bytes()),
        ]
    }
}
