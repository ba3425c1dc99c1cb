//! The contract of a VM, over VMs in machines of a simulated pool.
//!
//! All cases of this program share one pool; each has a controller of its own, of which nothing may be
//! left when the case is over. The cases are in `bioxen_testkit::contract`.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod guests;
#[path = "../support/mod.rs"]
mod support;

use bioxen_testkit::contract;

contract!(embedded, Some(guests::embedded()));
contract!(lua51, guests::program("lua5.1"));

/// An interpreter of the guest's own, which our worker does not hold in. It keeps what has to do with values,
/// state, output, errors, sessions and several calls. What is left out is what only our worker does in a
/// guest: refusing what was not granted (`grants`, `programs`), limits on memory and on processor time and
/// the ends of workers (`endings`), variables and directories of one run (`scripts`), and saying what holds
/// Lua in (`records`).
mod bare {
    use super::*;

    contract!(@cases guests::bare();
        values: [
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
        ]
        state: [
            globals_stay_between_evaluations,
            a_fresh_evaluation_sees_and_leaves_nothing,
            a_script_is_fresh_unless_it_is_to_keep_the_state,
            what_code_does_to_the_libraries_stays_in_its_own_state,
            starting_again_empties_the_state,
            an_error_leaves_the_state_as_it_was,
            a_coroutine_that_is_left_open_disturbs_nothing,
            random_numbers_differ_between_vms,
        ]
        output: [
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
        ]
        errors: [
            an_error_has_its_message_place_and_traceback,
            errors_of_the_interpreter_are_told_as_it_words_them,
            error_values_of_any_type_arrive,
            an_error_that_cannot_be_shown_is_still_an_error,
            a_stack_overflow_is_an_error,
            an_error_inside_a_coroutine_ends_the_run,
            errors_that_are_caught_end_nothing,
            os_exit_ends_the_run_with_its_code_and_not_the_vm,
            nothing_catches_os_exit,
        ]
        sessions: [
            a_session_shares_the_state_of_its_vm,
            input_that_wants_more_lines_says_so_and_runs_nothing,
            input_that_no_line_can_mend_is_an_error,
            each_input_has_its_own_output_and_values,
        ]
        concurrency: [
            calls_on_one_vm_run_in_the_order_in_which_they_came,
            many_vms_run_at_once,
            a_call_whose_future_is_dropped_is_cancelled,
            a_run_that_is_dropped_is_cancelled,
            a_call_that_is_dropped_before_its_turn_never_runs,
            output_that_nobody_reads_holds_up_its_own_run_only,
        ]
    );
}
