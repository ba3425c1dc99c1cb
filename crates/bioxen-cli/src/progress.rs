//! The steps of making a VM and how far a copy is, shown on standard error as they happen.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bioxen::Event;
use bioxen_core::backend::Report;

use crate::fleet::Place;
use crate::shown;

/// What clears the line that the cursor is on.
const CLEAR: &str = "\r\x1b[K";

/// How often at most something that changes is shown.
const BETWEEN: Duration = Duration::from_millis(100);

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

/// How far a copy is, shown on a terminal. The line is gone when this is dropped.
pub(crate) struct Transfer {
    shows: bool,
    began: Instant,
    shown: Option<Instant>,
}

/// A copy that begins now.
pub(crate) fn transfer(quiet: bool) -> Transfer {
    let shows = !quiet && io::stderr().is_terminal();
    Transfer { shows, began: Instant::now(), shown: None }
}

impl Transfer {
    /// So many bytes are there.
    pub(crate) fn at(&mut self, bytes: u64) {
        let now = Instant::now();
        if !self.shows || self.shown.is_some_and(|shown| now - shown < BETWEEN) {
            return;
        }
        self.shown = Some(now);
        let rate = u128::from(bytes) * 1000 / (now - self.began).as_millis().max(1);
        let rate = shown::size(u64::try_from(rate).unwrap_or(u64::MAX));
        let line = format!("{CLEAR}  {} copied, {rate} a second", shown::size(bytes));
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = io::stderr().lock().write_all(CLEAR.as_bytes());
        }
    }
}
