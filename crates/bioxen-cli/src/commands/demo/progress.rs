//! How far each VM is, redrawn in place on standard error while it is a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use bioxen::Event;

use crate::shown;

/// One line for each VM. Drawn over itself; gone when dropped.
pub(super) struct Progress {
    lines: Vec<(&'static str, String)>,
    drawn: bool,
    enabled: bool,
}

impl Progress {
    /// All VMs wait.
    pub(super) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        let lines = names.map(|name| (name, "waiting".to_owned())).collect();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let mut progress =
            Self { lines, drawn: false, enabled: io::stderr().is_terminal() && !dumb };
        progress.draw();
        progress
    }

    /// Shows what happened to a VM.
    pub(super) fn show(&mut self, event: &Event) {
        let state = match event {
            Event::VmCreated { .. } | Event::VmStarted { .. } => "ready".to_owned(),
            Event::StepStarted { step, .. } => format!("being made: {step}"),
            Event::RunStarted { .. } => "running".to_owned(),
            Event::RunEnded { record } => {
                format!("{} after {}", record.ending.ended_by, shown::duration(record.duration))
            }
            // Whatever comes to a VM after its run says nothing about the run.
            _ => return,
        };
        let name = event.vm().as_str();
        if let Some((_, line)) = self.lines.iter_mut().find(|(known, _)| *known == name) {
            *line = state;
            self.draw();
        }
    }

    fn draw(&mut self) {
        if !self.enabled {
            return;
        }
        let mut text = self.back_to_start();
        for (name, state) in &self.lines {
            let _ = writeln!(text, "  {name:<16}{state}\x1b[K");
        }
        self.drawn = true;
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn back_to_start(&self) -> String {
        if self.drawn { format!("\x1b[{}A", self.lines.len()) } else { String::new() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr().lock(), "{}\x1b[J", self.back_to_start());
        }
    }
}
