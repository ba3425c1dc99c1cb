//! The steps of making a VM, shown on standard error as they happen.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use bioxen::Event;
use bioxen_core::backend::Report;

use crate::shown;

/// What clears the line that the cursor is on.
const CLEAR: &str = "\r\x1b[K";

/// Nobody is shown anything.
pub(crate) fn silent() -> Report {
    Arc::new(|_| {})
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
        // When standard error is gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    })
}
