//! A binary search over system-call numbers, put before a filter that knows the conditions.
//!
//! When a filter is applied, the kernel runs it once for every system call there is, to learn which
//! are always allowed. A filter that compares one number after another makes that the most expensive
//! step of making a worker; this one takes a handful of comparisons for each.
//!
//! ```text
//! load number ─▶ tree of `>=` ─▶ allow
//!                             ├▶ refuse
//!                             ├▶ say that there is no such call
//!                             └▶ (conditions on arguments) the filter behind
//! ```

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, sock_filter};

// From the kernel's `linux/bpf_common.h` and `linux/seccomp.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// Where in `struct seccomp_data` the number of the call is.
const NUMBER: u32 = 0;
/// Where in `struct seccomp_data` the processor's architecture is.
const ARCHITECTURE: u32 = 4;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// What is to happen to a range of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Allow,
    Refuse,
    /// Answered as by a kernel that is older than the call.
    Missing,
    /// Asked of the filter behind.
    Ask,
}

/// Puts a search for the calls in `calls` before `rest`, which decides on those that are asked of it
/// and refuses calls of another architecture. Calls that are not listed get the verdict of the range
/// that they are in; `ranges` are given by their first numbers, of which one is 0.
pub(super) fn before(
    calls: &[(c_long, Verdict)],
    ranges: &[(u32, Verdict)],
    rest: BpfProgram,
) -> BpfProgram {
    let ranges = split(calls, ranges);
    let mut tree = Vec::new();
    emit(&ranges, &mut tree);
    // A call of another architecture has other numbers: the filter behind refuses it.
    let mut program = vec![
        statement(LOAD_WORD, ARCHITECTURE),
        jump(JUMP_IF_EQUAL, NATIVE, 1, 0),
        statement(JUMP, to_u32(tree.len() + 1)),
        statement(LOAD_WORD, NUMBER),
    ];
    let length = tree.len();
    for (index, instruction) in tree.into_iter().enumerate() {
        program.push(match instruction {
            Instruction::Test(at_least, skip) => jump(JUMP_IF_AT_LEAST, at_least, skip, 0),
            Instruction::End(Verdict::Allow) => statement(RETURN, ALLOW),
            Instruction::End(Verdict::Refuse) => {
                statement(RETURN, ERRNO | libc::EPERM.cast_unsigned())
            }
            Instruction::End(Verdict::Missing) => {
                statement(RETURN, ERRNO | libc::ENOSYS.cast_unsigned())
            }
            Instruction::End(Verdict::Ask) => statement(JUMP, to_u32(length - index - 1)),
        });
    }
    program.extend(rest);
    program
}

enum Instruction {
    /// Skips so many instructions when the number is at least this.
    Test(u32, u8),
    End(Verdict),
}

/// The ranges of numbers with one verdict, each by its first number, with `calls` put into `ranges`.
fn split(calls: &[(c_long, Verdict)], ranges: &[(u32, Verdict)]) -> Vec<(u32, Verdict)> {
    let around = |number: u32| {
        let before = ranges.iter().filter(|(first, _)| *first <= number);
        before.max_by_key(|(first, _)| *first).map_or(Verdict::Refuse, |(_, verdict)| *verdict)
    };
    let mut starts: BTreeMap<u32, Verdict> = ranges.iter().copied().collect();
    let numbers = calls
        .iter()
        .map(|(call, verdict)| (u32::try_from(*call).unwrap_or(u32::MAX - 1), *verdict));
    for (number, _) in numbers.clone() {
        starts.insert(number + 1, around(number + 1));
    }
    starts.extend(numbers);
    let mut ranges: Vec<(u32, Verdict)> = starts.into_iter().collect();
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// Writes the search tree for some ranges: the lower half first, so that jumps go forward.
fn emit(ranges: &[(u32, Verdict)], tree: &mut Vec<Instruction>) {
    if let [(_, verdict)] = ranges {
        return tree.push(Instruction::End(*verdict));
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let test = tree.len();
    tree.push(Instruction::End(Verdict::Refuse));
    emit(lower, tree);
    // A lower half of more than 255 instructions would need more than 128 ranges in it.
    let skip = u8::try_from(tree.len() - test - 1).expect("the lists of calls are short");
    tree[test] = Instruction::Test(upper[0].0, skip);
    emit(upper, tree);
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("filters are short")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the part of a program that decides by the number alone.
    fn run(program: &[sock_filter], number: u32) -> Option<u32> {
        let mut position = 3;
        loop {
            let instruction = &program[position];
            position += 1;
            match instruction.code {
                LOAD_WORD => {}
                JUMP_IF_AT_LEAST if number >= instruction.k => {
                    position += usize::from(instruction.jt);
                }
                JUMP_IF_AT_LEAST => position += usize::from(instruction.jf),
                JUMP => {
                    position += instruction.k as usize;
                    return (position == program.len()).then_some(0).or(None);
                }
                RETURN => return Some(instruction.k),
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_list() {
        use Verdict::{Allow, Ask, Missing, Refuse};
        let calls: Vec<(c_long, Verdict)> = [
            (0, Allow),
            (1, Allow),
            (9, Ask),
            (10, Ask),
            (39, Refuse),
            (231, Allow),
            (400, Missing),
        ]
        .into();
        for ranges in [&[(0, Refuse)][..], &[(0, Allow), (300, Missing), (450, Refuse)]] {
            let program = before(&calls, ranges, Vec::new());
            for number in (0..500).chain([0x4000_0000, u32::MAX]) {
                let listed = calls.iter().find(|(call, _)| *call == i64::from(number));
                let around = ranges.iter().rfind(|(first, _)| *first <= number).unwrap();
                let expected = match listed.map_or(around.1, |(_, verdict)| *verdict) {
                    Allow => ALLOW,
                    Ask => 0,
                    Refuse => ERRNO | libc::EPERM.cast_unsigned(),
                    Missing => ERRNO | libc::ENOSYS.cast_unsigned(),
                };
                assert_eq!(run(&program, number), Some(expected), "call {number}");
            }
        }
    }
}
