//! The steps of making a VM, shown on standard error as they happen.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use bioxen::Event;
use bioxen_core::backend::Report;

use crate::fleet::Place;
use crate::shown;

/// What clears the line that the cursor is on.
const CLEAR: &str = "\r\x1b[K";

/// Nobody is shown anything.
pub(crate) fn silent() -> Report {
    Arc::new(|_| {})
}

/// Shows on a terminal, while it is there, which step of making a VM is under way.
pub(crate) struct Shown(Option<tokio::task::JoinHandle<()>>);

impl Shown {
    /// Shows what happens in a fleet whose VMs take their time.
    pub(crate) fn of(place: &Place) -> Self {
        if place.machines.is_none() || !io::stderr().is_terminal() {
            return Self(None);
        }
        let mut events = place.fleet.events();
        Self(Some(tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Event::StepStarted { vm, step, .. } = event {
                    print(&format!("{CLEAR}{vm}: {step} …"));
                }
            }
        })))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
            print(CLEAR);
        }
    }
}

fn print(text: &str) {
    // When standard error is gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Each step is a line once it has ended; on a terminal the one that is under way is shown too.
pub(crate) fn lines() -> Report {
    let is_terminal = io::stderr().is_terminal();
    Arc::new(move |event| {
        let line = match event {
            Event::StepStarted { step, .. } if is_terminal => format!("{CLEAR}  {step} …"),
            Event::StepEnded { step, took, failed, .. } => {
                let clear = if is_terminal { CLEAR } else { "" };
                let took = shown::duration(took);
                let what = failed.map_or(String::new(), |why| {
                    format!("  failed: {}", shown::clipped(&why, 200))
                });
                format!("{clear}  {step:<10} {took:>8}{what}\n")
            }
            Event::MakingUndone { left, .. } if left.is_empty() => {
                "  what had been made was removed\n".to_owned()
            }
            _ => return,
        };
        print(&line);
    })
}
