//! What a simulated cloud-init says of itself, in the files and words of the real one.

use serde_json::{Value, json};

/// The stages of a boot, in their order, as `status.json` names them.
pub(super) const STAGES: [&str; 4] = ["init-local", "init", "modules-config", "modules-final"];

/// What a boot has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BootReport {
    /// Where the seed was found; `None` when there is none, and nothing to be done.
    pub(super) datasource: Option<String>,
    /// What failed, with the stage that it failed in.
    pub(super) errors: Vec<(&'static str, String)>,
    /// What was odd and did not keep the boot from going on.
    pub(super) warnings: Vec<(&'static str, String)>,
    /// The stage that is going on.
    pub(super) stage: Option<&'static str>,
    /// When it began and, once it is over, ended, in seconds since 1970.
    pub(super) started: f64,
    pub(super) finished: Option<f64>,
}

impl BootReport {
    pub(super) fn status(&self) -> &'static str {
        match (&self.datasource, self.finished) {
            (None, _) => "disabled",
            (Some(_), None) => "running",
            (Some(_), Some(_)) if !self.errors.is_empty() => "error",
            (Some(_), Some(_)) => "done",
        }
    }

    /// What `cloud-init status` exits with once the boot is over.
    pub(super) fn exit_code(&self) -> u8 {
        match (self.errors.is_empty(), self.warnings.is_empty()) {
            (false, _) => 1,
            (true, false) => 2,
            (true, true) => 0,
        }
    }

    fn extended_status(&self) -> String {
        let status = self.status();
        if status == "done" && !self.warnings.is_empty() {
            "degraded done".into()
        } else if status == "error" {
            "error - done".into()
        } else {
            status.into()
        }
    }

    fn detail(&self) -> String {
        let disabled = || "Cloud-init disabled by cloud-init-generator".into();
        self.datasource.clone().unwrap_or_else(disabled)
    }

    fn messages<'a>(of: &'a [(&'static str, String)]) -> Vec<&'a str> {
        of.iter().map(|(_, message)| &**message).collect()
    }

    fn recoverable(&self, stage: Option<&str>) -> Value {
        let warnings =
            self.warnings.iter().filter(|(of, _)| stage.is_none_or(|stage| stage == *of));
        let warnings: Vec<&str> = warnings.map(|(_, message)| &**message).collect();
        if warnings.is_empty() { json!({}) } else { json!({ "WARNING": warnings }) }
    }

    /// The contents of `result.json`.
    pub(super) fn result_json(&self) -> Value {
        json!({ "v1": {
            "datasource": self.datasource,
            "errors": Self::messages(&self.errors),
            "recoverable_errors": self.recoverable(None),
        }})
    }

    /// The contents of `status.json`.
    pub(super) fn status_json(&self) -> Value {
        let mut v1 = json!({ "datasource": self.datasource, "stage": self.stage });
        let reached = self.stage.and_then(|stage| STAGES.iter().position(|name| *name == stage));
        for (number, stage) in STAGES.into_iter().enumerate() {
            let begun = self.finished.is_some() || reached.is_some_and(|reached| number <= reached);
            let over = self.finished.is_some() || reached.is_some_and(|reached| number < reached);
            let errors: Vec<&str> = (self.errors.iter())
                .filter(|(of, _)| *of == stage)
                .map(|(_, message)| &**message)
                .collect();
            v1[stage] = json!({
                "errors": errors,
                "recoverable_errors": self.recoverable(Some(stage)),
                "start": begun.then_some(self.started),
                "finished": over.then(|| self.finished.unwrap_or(self.started)),
            });
        }
        json!({ "v1": v1 })
    }

    /// What `cloud-init status --format json` prints.
    pub(super) fn printed_json(&self) -> Value {
        let mut printed = json!({
            "boot_status_code":
                if self.datasource.is_some() { "enabled-by-generator" } else { "disabled-by-generator" },
            "datasource": self.datasource.as_deref().map_or("", |_| "nocloud"),
            "detail": self.detail(),
            "errors": Self::messages(&self.errors),
            "extended_status": self.extended_status(),
            "last_update": "",
            "recoverable_errors": self.recoverable(None),
            "schemas": {},
            "status": self.status(),
        });
        if let (Some(stages), Value::Object(status)) =
            (printed.as_object_mut(), self.status_json()["v1"].take())
        {
            stages.extend(status.into_iter().filter(|(name, _)| STAGES.contains(&&**name)));
        }
        printed
    }

    /// What `cloud-init status` prints, and what `--long` adds.
    pub(super) fn printed_text(&self) -> (String, String) {
        let list = |messages: Vec<&str>| {
            if messages.is_empty() {
                " []\n".to_owned()
            } else {
                messages.iter().fold("\n".into(), |text, line| format!("{text}\t- {line}\n"))
            }
        };
        let long = format!(
            "extended_status: {}\nboot_status_code: {}\ndetail: {}\nerrors:{}recoverable_errors:{}",
            self.extended_status(),
            if self.datasource.is_some() {
                "enabled-by-generator"
            } else {
                "disabled-by-generator"
            },
            self.detail(),
            list(Self::messages(&self.errors)),
            list(Self::messages(&self.warnings)),
        );
        (format!("status: {}\n", self.status()), long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> BootReport {
        let datasource = Some("DataSourceNoCloud [seed=/dev/xvdb]".into());
        BootReport { datasource, started: 1.0, ..BootReport::default() }
    }

    #[test]
    fn a_boot_is_running_until_it_is_done() {
        let mut boot = report();
        assert_eq!(boot.status(), "running");
        boot.finished = Some(2.0);
        assert_eq!((boot.status(), boot.exit_code()), ("done", 0));
        assert_eq!(boot.result_json()["v1"]["errors"], json!([]));
    }

    #[test]
    fn a_failure_is_an_error_in_its_stage() {
        let mut boot = report();
        boot.errors.push(("modules-final", "it failed".into()));
        boot.finished = Some(2.0);
        assert_eq!((boot.status(), boot.exit_code()), ("error", 1));
        assert_eq!(boot.status_json()["v1"]["modules-final"]["errors"], json!(["it failed"]));
        assert_eq!(boot.status_json()["v1"]["init"]["errors"], json!([]));
        assert_eq!(boot.printed_json()["errors"], json!(["it failed"]));
    }

    #[test]
    fn a_warning_degrades_a_boot_that_is_done() {
        let mut boot = report();
        boot.warnings.push(("init", "odd".into()));
        boot.finished = Some(2.0);
        assert_eq!((boot.status(), boot.exit_code()), ("done", 2));
        assert_eq!(boot.printed_json()["extended_status"], "degraded done");
        assert_eq!(boot.printed_json()["recoverable_errors"]["WARNING"], json!(["odd"]));
    }

    #[test]
    fn without_a_seed_it_is_disabled() {
        assert_eq!(BootReport::default().status(), "disabled");
    }
}
