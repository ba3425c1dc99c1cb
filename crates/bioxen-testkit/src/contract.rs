//! The contract that every VM keeps, whatever runs its Lua and wherever it lives.
//!
//! Each case is an async function over a [`Subject`]. The macro [`contract!`](crate::contract!) makes
//! tests out of all of them for one subject:
//!
//! ```ignore
//! bioxen_testkit::contract!(lua51, bioxen_testkit::contract::program("lua5.1"));
//! ```
//!
//! Where kinds of interpreter differ by design, [`TRAITS`] says so, and nothing else does.

#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod concurrency;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod endings;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod errors;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod grants;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod output;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod programs;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod records;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod scripts;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod sessions;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod state;
#[expect(missing_docs, clippy::missing_panics_doc, reason = "a case is named by what it checks")]
pub mod values;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use bioxen::{EndedBy, EvalError, Fleet, Interpreter, Run, Value, Vm, VmSpec, VmState};
use futures::future::BoxFuture;
use nix::sys::signal::Signal;

use crate::{PATIENCE, Process, Scratch, block_on, fleet, interpreter};

/// What one kind of interpreter does in its own way, by design.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Traits {
    /// Integers are apart from floats. Elsewhere a float without a fraction is given as an integer.
    pub has_integers: bool,
    /// A run that is stopped for its time, or cancelled, leaves the Lua state. Elsewhere nothing but
    /// a kill stops running code: the VM has failed, and is to be started again.
    pub survives_stopping: bool,
    /// Memory is counted by Lua's allocator, for each run. Elsewhere the figure is the whole process's
    /// since it started, and the limit is the system's.
    pub counts_lua_memory: bool,
    /// Values of tables can have finalisers.
    pub has_finalisers: bool,
    /// Standard error of a program that Lua starts arrives as it comes. Elsewhere it comes last.
    pub streams_program_errors: bool,
    /// Libraries written in C can be loaded from directories that may be read.
    pub loads_c_libraries: bool,
}

const EMBEDDED: Traits = Traits {
    has_integers: true,
    survives_stopping: true,
    counts_lua_memory: true,
    has_finalisers: true,
    streams_program_errors: true,
    loads_c_libraries: false,
};

/// Lua 5.3 and later, as a program of its own.
const PROGRAM: Traits = Traits {
    has_integers: true,
    survives_stopping: false,
    counts_lua_memory: false,
    has_finalisers: true,
    streams_program_errors: false,
    loads_c_libraries: true,
};

/// The differences by design: all of them.
pub const TRAITS: [(&str, Traits); 6] = [
    ("embedded", EMBEDDED),
    ("lua5.1", Traits { has_integers: false, has_finalisers: false, ..PROGRAM }),
    ("lua5.2", Traits { has_integers: false, ..PROGRAM }),
    ("lua5.3", PROGRAM),
    ("lua5.4", PROGRAM),
    ("luajit", Traits { has_integers: false, has_finalisers: false, ..PROGRAM }),
];

/// What the contract is tried on: a way to order VMs, and what is known about their kind.
pub struct Subject {
    /// Where its VMs are made.
    pub fleet: Fleet,
    /// Its row of [`TRAITS`].
    pub traits: Traits,
    spec: Box<dyn Fn(&str) -> VmSpec + Send + Sync>,
    made: AtomicUsize,
    place: Option<Box<dyn Elsewhere>>,
}

/// Where VMs run whose processes are not simply this machine's.
pub trait Elsewhere: Send + Sync {
    /// A directory that they see at the same path as this test does, to read and to write.
    fn shared(&self) -> PathBuf;

    /// Sends a signal to a VM's worker, if there is one; tells whether there was.
    fn signal(&self, vm: &Vm, signal: Signal) -> BoxFuture<'_, bool>;

    /// Checks, once the fleet was shut down, that nothing of it is left.
    fn check_that_nothing_is_left(&self) -> BoxFuture<'_, ()>;
}

/// The worker of a VM that ran when this was made, for doing to it what its fleet does not expect.
pub struct WorkerOf<'a> {
    vm: &'a Vm,
    place: Result<Process, &'a dyn Elsewhere>,
}

impl WorkerOf<'_> {
    /// Sends it a signal; tells whether it was there.
    pub async fn signal(&self, signal: Signal) -> bool {
        match &self.place {
            Ok(process) => {
                let was_there = process.is_alive();
                process.signal(signal);
                was_there
            }
            Err(elsewhere) => elsewhere.signal(self.vm, signal).await,
        }
    }

    /// Sends it a signal again and again until it is there no more.
    ///
    /// # Panics
    ///
    /// When it stays.
    pub async fn signal_until_gone(&self, signal: Signal) {
        let sending = async {
            while self.signal(signal).await {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.expect("the worker goes");
    }
}

impl Subject {
    /// A subject whose VMs are ordered by `spec`, which is given their names.
    ///
    /// # Panics
    ///
    /// When [`TRAITS`] has no row `kind`.
    pub fn new(kind: &str, spec: impl Fn(&str) -> VmSpec + Send + Sync + 'static) -> Self {
        Self::in_fleet(fleet(), kind, spec)
    }

    /// As [`new`](Self::new), its VMs being made in a fleet of the caller's.
    ///
    /// # Panics
    ///
    /// When [`TRAITS`] has no row `kind`.
    pub fn in_fleet(
        fleet: Fleet,
        kind: &str,
        spec: impl Fn(&str) -> VmSpec + Send + Sync + 'static,
    ) -> Self {
        let (_, traits) = TRAITS
            .into_iter()
            .find(|(name, _)| *name == kind)
            .unwrap_or_else(|| panic!("no traits are known of `{kind}`"));
        Self { fleet, traits, spec: Box::new(spec), made: AtomicUsize::new(0), place: None }
    }

    /// The same, its VMs running in another place than this machine.
    #[must_use]
    pub fn elsewhere(mut self, place: impl Elsewhere + 'static) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// An empty directory that VMs see at the same path, gone when the case is over.
    pub fn scratch(&self) -> Scratch {
        match &self.place {
            Some(place) => Scratch::open_to_all(&place.shared()),
            None => Scratch::new(),
        }
    }

    /// The worker of a VM that runs.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn worker_of<'a>(&'a self, vm: &'a Vm) -> WorkerOf<'a> {
        let place = match (vm.status(), &self.place) {
            (VmState::Running { .. }, Some(place)) => Err(place.as_ref()),
            (VmState::Running { process: Some(pid), .. }, None) => Ok(Process::of(pid)),
            (other, _) => panic!("it is {other:?}"),
        };
        WorkerOf { vm, place }
    }

    /// The order for another VM of this subject.
    pub fn spec(&self) -> VmSpec {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        (self.spec)(&format!("vm-{number}"))
    }

    /// A VM with every setting at its default.
    pub async fn vm(&self) -> Vm {
        self.vm_with(|spec| spec).await
    }

    /// A VM whose order was changed.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn vm_with(&self, change: impl FnOnce(VmSpec) -> VmSpec) -> Vm {
        let created = self.fleet.create(change(self.spec())).await;
        created.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
    }

    /// Checks that a VM runs code after one of its runs was stopped. Where that cost the Lua state,
    /// the VM says that it has failed, and is started again first.
    ///
    /// # Panics
    ///
    /// When it does not run code.
    pub async fn goes_on(&self, vm: &Vm) {
        if !self.traits.survives_stopping {
            assert_eq!(vm.status().name(), "failed");
            vm.start().await.expect("a failed VM can be started");
        }
        let run = finished(vm.eval("return 6 * 7").await);
        assert_eq!(run.record.values, [Value::Integer(42)]);
    }
}

/// The built-in interpreter.
pub fn embedded() -> Option<Subject> {
    embedded_in(fleet())
}

/// The built-in interpreter, in a fleet of the caller's.
pub fn embedded_in(fleet: Fleet) -> Option<Subject> {
    Some(Subject::in_fleet(fleet, "embedded", named))
}

/// An interpreter that is a program of its own, if this machine has it.
pub fn program(name: &'static str) -> Option<Subject> {
    program_in(fleet(), name)
}

/// As [`program`], in a fleet of the caller's.
pub fn program_in(fleet: Fleet, name: &'static str) -> Option<Subject> {
    let path: PathBuf = interpreter(name)?.program?;
    let spec = move |vm: &str| named(vm).interpreter(Interpreter::Program(path.clone()));
    Some(Subject::in_fleet(fleet, name, spec))
}

/// An order with every setting at its default.
///
/// # Panics
///
/// When `name` is no VM's name.
pub fn named(name: &str) -> VmSpec {
    VmSpec::basic(name).expect("tests use valid names")
}

/// Runs one case on a subject, if there is one.
pub fn run(subject: Option<Subject>, case: impl AsyncFnOnce(&Subject)) {
    let Some(subject) = subject else { return };
    block_on(async {
        case(&subject).await;
        subject.fleet.shutdown().await.expect("nothing is left");
        if let Some(place) = &subject.place {
            place.check_that_nothing_is_left().await;
        }
    });
}

/// The run, which is to have ended so.
///
/// # Panics
///
/// When it ended otherwise.
#[track_caller]
pub fn ended(outcome: Result<Run, EvalError>, ended_by: EndedBy) -> Run {
    let run = outcome.unwrap_or_else(|error| panic!("no run: {error}"));
    let (error, values) = (&run.record.error, &run.record.values);
    assert_eq!(run.record.ending.ended_by, ended_by, "error {error:?}, values {values:?}");
    run
}

/// The run, which is to have finished.
///
/// # Panics
///
/// When it did not.
#[track_caller]
pub fn finished(outcome: Result<Run, EvalError>) -> Run {
    ended(outcome, EndedBy::Finished)
}

/// The message of the error by which a run is to have ended.
///
/// # Panics
///
/// When it ended otherwise.
#[track_caller]
pub fn failed(outcome: Result<Run, EvalError>) -> String {
    let run = ended(outcome, EndedBy::Error);
    run.record.error.expect("a run that ended by an error has one").message
}

/// A text as a value.
pub fn text(text: impl AsRef<[u8]>) -> Value {
    Value::String(text.as_ref().to_vec())
}

/// A text as a Lua string that can stand in code.
pub fn quoted(text: impl AsRef<std::ffi::OsStr>) -> String {
    let bytes = text.as_ref().as_encoded_bytes();
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03}")).collect();
    format!("\"{escaped}\"")
}

/// Makes a module of tests out of the contract for one subject: of all its cases, or of those of some groups.
#[macro_export]
macro_rules! contract {
    ($module:ident, $subject:expr) => {
        $crate::contract!(
            $module, $subject,
            [values state scripts output errors sessions endings grants programs concurrency records]
        );
    };
    ($module:ident, $subject:expr, [$($group:ident)*]) => {
        mod $module {
            #[allow(unused_imports, reason = "the subject may be named by any path")]
            use super::*;

            $($crate::contract!(@group $group $subject);)*
        }
    };
    (@group values $subject:expr) => {
        $crate::contract!(@cases $subject; values: [
                an_expression_gives_its_values,
                statements_give_what_they_return,
                floats_arrive_exactly,
                integers_arrive_exactly,
                strings_are_any_bytes,
                tables_are_arrays_or_maps,
                entries_of_a_map_are_ordered_by_their_keys,
                what_is_no_data_is_named_by_its_type,
                a_table_inside_itself_is_named_and_not_followed,
                tables_that_are_nested_too_deep_are_named,
                values_are_read_without_calling_metamethods,
                values_that_are_too_large_end_the_run_by_its_output_limit,
        ]);
    };
    (@group state $subject:expr) => {
        $crate::contract!(@cases $subject; state: [
                globals_stay_between_evaluations,
                a_fresh_evaluation_sees_and_leaves_nothing,
                a_script_is_fresh_unless_it_is_to_keep_the_state,
                what_code_does_to_the_libraries_stays_in_its_own_state,
                starting_again_empties_the_state,
                an_error_leaves_the_state_as_it_was,
                a_coroutine_that_is_left_open_disturbs_nothing,
                random_numbers_differ_between_vms,
        ]);
    };
    (@group scripts $subject:expr) => {
        $crate::contract!(@cases $subject; scripts: [
                arguments_arrive_as_any_bytes,
                without_arguments_there_are_none,
                standard_input_is_read_in_every_way,
                lines_of_standard_input_can_be_walked,
                standard_input_is_empty_unless_it_is_given,
                input_that_was_not_read_is_not_left_for_the_next_run,
                standard_input_can_come_from_a_reader_as_it_is_asked_for,
                relative_paths_start_from_the_working_directory,
                variables_of_a_run_are_seen_by_it_alone,
                a_script_may_be_in_a_file,
                a_script_that_cannot_be_read_is_a_typed_error,
                a_syntax_error_says_where_it_is,
                code_may_be_very_long,
                code_that_is_no_text_is_refused,
        ]);
    };
    (@group output $subject:expr) => {
        $crate::contract!(@cases $subject; output: [
                both_streams_arrive_apart,
                the_order_across_streams_is_kept,
                output_is_exact_bytes,
                ten_megabytes_may_be_on_one_line,
                many_short_lines_arrive_whole,
                output_comes_while_the_code_runs,
                what_was_written_before_an_error_or_an_exit_arrives,
                buffering_modes_lose_nothing,
                output_beyond_the_limit_ends_the_run,
                what_finalisers_write_at_the_end_of_a_fresh_run_arrives,
        ]);
    };
    (@group errors $subject:expr) => {
        $crate::contract!(@cases $subject; errors: [
                an_error_has_its_message_place_and_traceback,
                errors_of_the_interpreter_are_told_as_it_words_them,
                error_values_of_any_type_arrive,
                an_error_that_cannot_be_shown_is_still_an_error,
                a_stack_overflow_is_an_error,
                an_error_inside_a_coroutine_ends_the_run,
                errors_that_are_caught_end_nothing,
                os_exit_ends_the_run_with_its_code_and_not_the_vm,
                nothing_catches_os_exit,
        ]);
    };
    (@group sessions $subject:expr) => {
        $crate::contract!(@cases $subject; sessions: [
                a_session_shares_the_state_of_its_vm,
                input_that_wants_more_lines_says_so_and_runs_nothing,
                input_that_no_line_can_mend_is_an_error,
                each_input_has_its_own_output_and_values,
        ]);
    };
    (@group endings $subject:expr) => {
        $crate::contract!(@cases $subject; endings: [
                a_run_ends_when_its_time_is_up,
                a_run_may_have_a_time_of_its_own,
                a_run_that_waits_for_input_ends_when_its_time_is_up,
                a_loop_inside_the_interpreter_ends_when_its_time_is_up,
                a_run_ends_when_its_processor_time_is_up,
                waiting_costs_no_processor_time,
                a_run_that_needs_too_much_memory_ends,
                a_shortage_of_memory_that_is_caught_ends_nothing,
                a_run_can_be_cancelled,
                a_run_that_waits_for_input_can_be_cancelled,
                a_worker_that_is_killed_from_outside_is_told_as_killed,
                a_worker_that_crashes_is_told_as_crashed,
                a_worker_that_dies_idle_is_noticed_by_the_next_run,
                stopping_a_vm_ends_its_run_as_cancelled,
                the_limits_on_time_hold_for_a_script_that_catches_errors,
                what_was_written_before_the_end_arrives,
        ]);
    };
    (@group grants $subject:expr) => {
        $crate::contract!(@cases $subject; grants: [
                what_is_not_granted_is_refused_by_a_message_that_names_the_grant,
                a_granted_file_can_be_read_and_not_written,
                a_granted_directory_covers_all_below_it,
                files_can_be_made_changed_and_removed_where_writing_is_granted,
                what_was_written_is_in_the_file_when_the_run_is_over,
                a_file_that_is_granted_for_writing_need_not_be_there,
                relative_grants_start_from_the_working_directory,
                granted_variables_are_seen_and_no_others,
                modules_of_a_granted_directory_can_be_required,
                libraries_written_in_c_are_loaded_only_where_the_kind_allows_it,
                a_granted_port_can_be_connected_to_and_no_other,
        ]);
    };
    (@group programs $subject:expr) => {
        $crate::contract!(@cases $subject; programs: [
                the_output_of_a_program_is_that_of_the_run,
                the_output_of_a_program_is_exact_bytes,
                the_status_of_a_program_is_told,
                a_program_can_be_read_from,
                a_program_can_be_written_to,
                a_program_has_no_input,
                programs_see_the_variables_of_the_run_and_no_others,
                programs_start_in_the_working_directory,
                the_limits_of_a_run_hold_for_its_programs,
                programs_are_not_started_unless_that_is_granted,
        ]);
    };
    (@group concurrency $subject:expr) => {
        $crate::contract!(@cases $subject; concurrency: [
                calls_on_one_vm_run_in_the_order_in_which_they_came,
                many_vms_run_at_once,
                a_call_whose_future_is_dropped_is_cancelled,
                a_run_that_is_dropped_is_cancelled,
                a_call_that_is_dropped_before_its_turn_never_runs,
                output_that_nobody_reads_holds_up_its_own_run_only,
        ]);
    };
    (@group records $subject:expr) => {
        $crate::contract!(@cases $subject; records: [
                a_record_has_exactly_these_keys,
                a_record_of_an_error_has_the_error_besides,
                a_record_of_a_limit_has_its_numbers_besides,
                a_record_says_what_ran_where,
                a_record_is_told_as_an_event_too,
        ]);
    };
    (@cases $subject:expr; $($group:ident: [$($case:ident),* $(,)?])*) => {$(
        mod $group {
            #[allow(unused_imports, reason = "the subject may be named by any path")]
            use super::*;

            $(
                #[test]
                fn $case() {
                    $crate::contract::run($subject, $crate::contract::$group::$case);
                }
            )*
        }
    )*};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let list = include_str!("contract.rs").split("macro_rules! contract").nth(1).unwrap();
        let sources = [
            include_str!("contract/concurrency.rs"),
            include_str!("contract/endings.rs"),
            include_str!("contract/errors.rs"),
            include_str!("contract/grants.rs"),
            include_str!("contract/output.rs"),
            include_str!("contract/programs.rs"),
            include_str!("contract/records.rs"),
            include_str!("contract/scripts.rs"),
            include_str!("contract/sessions.rs"),
            include_str!("contract/state.rs"),
            include_str!("contract/values.rs"),
        ];
        let cases = sources.iter().flat_map(|source| source.split("\npub async fn ").skip(1));
        for case in cases {
            let name = case.split('(').next().unwrap();
            assert!(list.contains(&format!(" {name},")), "`{name}` is not in the list");
        }
    }
}
