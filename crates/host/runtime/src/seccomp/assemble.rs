//! Assembles a filter from verdicts.
//!
//! In: for each architecture, verdicts by call number. Out: classic BPF. Knows nothing of names or profiles.

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error.
    Errno(u16),
    /// It is made when the first argument is in one of these ranges, given as first and last value.
    FirstArgument(&'static [(u32, u32)]),
    /// It is made when the first argument has none of these bits.
    NoneOf(u32),
}

/// The calls of one architecture.
pub(super) struct Abi {
    /// The kernel's number of it.
    pub(super) audit: u32,
    /// A bit of the call number that only marks a mode.
    pub(super) ignored_bit: Option<u32>,
    /// Later calls are answered with "not implemented".
    pub(super) last_known: u32,
    /// Verdicts by number, in any order. Others are not permitted.
    pub(super) calls: Vec<(u32, Verdict)>,
}

type Program = Vec<libc::sock_filter>;

/// Source: `linux/bpf_common.h`: class, size, mode and operation, added up.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`. Source: `linux/seccomp.h`; arguments are 64 bits wide, low half first.
const CALL: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_LOW: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

const DENY: Verdict = Verdict::Errno(libc::EPERM as u16);
const UNKNOWN: Verdict = Verdict::Errno(libc::ENOSYS as u16);

fn insn(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Assembles the whole filter.
pub(super) fn program(abis: &[Abi]) -> Program {
    let mut program = vec![insn(LOAD, ARCHITECTURE)];
    for abi in abis {
        let body = calls(abi);
        program.push(branch(IF_EQUAL, abi.audit, 1, 0));
        program.push(insn(JUMP, length(&body)));
        program.extend(body);
    }
    program.push(insn(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn calls(abi: &Abi) -> Program {
    let mut program = vec![insn(LOAD, CALL)];
    if let Some(bit) = abi.ignored_bit {
        program.push(insn(AND, !bit));
    }
    program.extend(search(&ranges(abi)));
    program
}

/// Cuts the numbers from 0 up into ranges of one verdict each, by their first numbers.
fn ranges(abi: &Abi) -> Vec<(u32, Verdict)> {
    let mut calls = abi.calls.clone();
    calls.sort_unstable_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, DENY)];
    let mut add = |first: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == first => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((first, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in calls {
        if number > next {
            gap(next, number, abi.last_known, &mut add);
        }
        add(number, verdict);
        next = number + 1;
    }
    gap(next, u32::MAX, abi.last_known, &mut add);
    ranges
}

/// The calls from `first` up to `end` that have no verdict of their own.
fn gap(first: u32, end: u32, last_known: u32, add: &mut impl FnMut(u32, Verdict)) {
    if first <= last_known {
        add(first, DENY);
    }
    if end > last_known + 1 {
        add(first.max(last_known + 1), UNKNOWN);
    }
}

/// Finds the range of the loaded value by halving.
fn search(ranges: &[(u32, Verdict)]) -> Program {
    let (lower, upper) = match ranges {
        [] => return verdict(DENY),
        [(_, only)] => return verdict(*only),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let (below, above) = (search(lower), search(upper));
    let mut program = Program::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(distance) => program.push(branch(IF_AT_LEAST, upper[0].0, distance, 0)),
        // Conditional jumps reach 255 instructions; farther ones take a detour.
        Err(_) => {
            program.push(branch(IF_AT_LEAST, upper[0].0, 0, 1));
            program.push(insn(JUMP, length(&below)));
        }
    }
    program.extend(below);
    program.extend(above);
    program
}

fn verdict(verdict: Verdict) -> Program {
    match verdict {
        Verdict::Allow => vec![insn(RETURN, libc::SECCOMP_RET_ALLOW)],
        Verdict::Errno(errno) => vec![insn(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(errno))],
        Verdict::FirstArgument(allowed) => {
            let mut values: Vec<(u32, Verdict)> = vec![(0, DENY)];
            for (first, last) in allowed {
                match values.last_mut() {
                    Some(start) if start.0 == *first => start.1 = Verdict::Allow,
                    _ => values.push((*first, Verdict::Allow)),
                }
                if let Some(after) = last.checked_add(1) {
                    values.push((after, DENY));
                }
            }
            let mut program = vec![
                insn(LOAD, ARGUMENT_HIGH),
                branch(IF_EQUAL, 0, 1, 0),
                insn(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
                insn(LOAD, ARGUMENT_LOW),
            ];
            program.extend(search(&values));
            program
        }
        Verdict::NoneOf(bits) => vec![
            insn(LOAD, ARGUMENT_LOW),
            branch(IF_ANY, bits, 0, 1),
            insn(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
            insn(RETURN, libc::SECCOMP_RET_ALLOW),
        ],
    }
}

fn length(program: &Program) -> u32 {
    // The kernel takes at most 4096 instructions.
    u32::try_from(program.len()).unwrap_or(u32::MAX)
}
