//! From what is known about a run's end to the ending in its record.

use std::time::Duration;

use bioxen_core::protocol::zygote::{Exit, How, exit_code};
use bioxen_core::protocol::{End, Status};
use bioxen_core::{ByteSize, EndedBy, Ending, Limits};

/// What a run got to, for the text of its ending.
pub(crate) struct Reached {
    pub(crate) duration: Duration,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) memory: Option<u64>,
    pub(crate) output: u64,
}

/// How an evaluation whose worker lives has ended.
pub(crate) fn ended_by(status: Status) -> EndedBy {
    match status {
        Status::Finished | Status::Incomplete => EndedBy::Finished,
        Status::Error => EndedBy::Error,
        Status::WallTime => EndedBy::WallTime,
        Status::CpuTime => EndedBy::CpuTime,
        Status::Memory => EndedBy::Memory,
        Status::Output => EndedBy::Output,
        Status::Cancelled => EndedBy::Cancelled,
    }
}

/// How an evaluation has ended whose worker died under it. `ours` is why we killed it, if we did.
pub(crate) fn died_of(exit: Option<Exit>, ours: Option<EndedBy>) -> EndedBy {
    let Some(exit) = exit else { return ours.unwrap_or(EndedBy::Lost) };
    match exit.how {
        How::Exited(exit_code::WALL_TIME) => EndedBy::WallTime,
        // 24 is SIGXCPU on Linux; below are SIGHUP, SIGINT, SIGKILL and SIGTERM.
        How::Exited(exit_code::CPU_TIME) | How::Signalled(24) => EndedBy::CpuTime,
        How::Exited(exit_code::OUTPUT) => EndedBy::Output,
        How::Exited(exit_code::CANCELLED) => EndedBy::Cancelled,
        How::Exited(exit_code::MEMORY) => EndedBy::Memory,
        How::Exited(exit_code::EXIT) => EndedBy::Finished,
        How::Exited(_) => ours.unwrap_or(EndedBy::Lost),
        // Nothing crashes by these: somebody has sent them, as by pressing Ctrl-C or going down.
        How::Signalled(1 | 2 | 9 | 15) => ours.unwrap_or(EndedBy::Killed),
        How::Signalled(signal) => EndedBy::Crashed(signal),
    }
}

/// The ending with its numbers, a hint and the code for a shell.
pub(crate) fn ending(
    ended_by: EndedBy,
    end: Option<&End>,
    limits: &Limits,
    reached: &Reached,
    fresh: bool,
) -> Ending {
    let state_kept = end.is_some_and(|end| !end.state_lost);
    let (limit, peak, hint) = numbers(ended_by, limits, reached);
    let state_hint = "the VM's Lua state is gone; start the VM again to go on";
    // A run in a state of its own had nothing to lose.
    let hint = match (hint, state_kept || fresh) {
        (Some(hint), true) => Some(hint),
        (Some(hint), false) => Some(format!("{hint}; {state_hint}")),
        (None, true) => None,
        (None, false) => Some(state_hint.to_owned()),
    };
    let own_code = end.and_then(|end| end.exit_code);
    Ending { ended_by, limit, peak, hint, exit_code: shell_code(ended_by, own_code), state_kept }
}

fn shell_code(ended_by: EndedBy, own: Option<i32>) -> i32 {
    match ended_by {
        EndedBy::Finished => own.unwrap_or(0),
        EndedBy::Error | EndedBy::Output => 1,
        EndedBy::WallTime | EndedBy::CpuTime => 124,
        EndedBy::Memory | EndedBy::Killed => 137,
        EndedBy::Crashed(signal) => 128 + signal,
        EndedBy::Cancelled => 130,
        EndedBy::Lost => 125,
    }
}

type Numbers = (Option<String>, Option<String>, Option<String>);

fn numbers(ended_by: EndedBy, limits: &Limits, reached: &Reached) -> Numbers {
    let seconds = |duration: Duration| format!("{:.3}s", duration.as_secs_f64());
    let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
    let raise =
        |flag: &str| Some(format!("raise it with {flag}, or lift it with `{flag} unlimited`"));
    match ended_by {
        EndedBy::WallTime => (
            Some(limits.wall_time.to_string()),
            Some(seconds(reached.duration)),
            raise("--timeout"),
        ),
        EndedBy::CpuTime => {
            (Some(limits.cpu_time.to_string()), reached.cpu_time.map(seconds), raise("--cpu-time"))
        }
        EndedBy::Memory => {
            (Some(limits.memory.to_string()), reached.memory.map(size), raise("--memory"))
        }
        EndedBy::Output => {
            (Some(limits.output.to_string()), Some(size(reached.output)), raise("--max-output"))
        }
        EndedBy::Killed => {
            let hint = "something else killed the worker, such as the system when memory ran out";
            (None, None, Some(hint.into()))
        }
        EndedBy::Crashed(_) => {
            (None, None, Some("the interpreter itself crashed; please report this".into()))
        }
        EndedBy::Lost => (None, None, Some("the worker ended and left no word why".into())),
        EndedBy::Finished | EndedBy::Error | EndedBy::Cancelled => (None, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(how: How) -> Exit {
        Exit { how, cpu_time_us: None, peak_resident: None }
    }

    #[test]
    fn a_worker_that_ended_itself_says_why() {
        assert_eq!(died_of(Some(exit(How::Exited(exit_code::WALL_TIME))), None), EndedBy::WallTime);
        assert_eq!(
            died_of(Some(exit(How::Exited(exit_code::CANCELLED))), None),
            EndedBy::Cancelled
        );
    }

    #[test]
    fn a_kill_that_was_not_ours_is_told_apart_from_one_that_was() {
        for sent in [1, 2, 9, 15] {
            assert_eq!(died_of(Some(exit(How::Signalled(sent))), None), EndedBy::Killed);
        }
        assert_eq!(
            died_of(Some(exit(How::Signalled(9))), Some(EndedBy::WallTime)),
            EndedBy::WallTime
        );
        assert_eq!(died_of(Some(exit(How::Signalled(11))), None), EndedBy::Crashed(11));
        assert_eq!(died_of(None, None), EndedBy::Lost);
    }

    #[test]
    fn shells_see_the_codes_that_they_know() {
        assert_eq!(shell_code(EndedBy::Finished, Some(3)), 3);
        assert_eq!(shell_code(EndedBy::WallTime, None), 124);
        assert_eq!(shell_code(EndedBy::Memory, None), 137);
        assert_eq!(shell_code(EndedBy::Crashed(11), None), 139);
    }
}
