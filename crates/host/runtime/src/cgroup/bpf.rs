//! Enforces device rules on version 2, where the kernel has no files for them but asks a program of ours.
//!
//! In: rules, later ones win. Out: a program in the kernel's instruction set, attached to the group. Lives as long as the
//! group; nothing has to be kept open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::spec::{DeviceKind, DeviceRule};

/// Source: `linux/bpf.h`.
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_ACC_READ: i32 = 2;
const BPF_DEVCG_ACC_WRITE: i32 = 4;
const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// One instruction: operation, registers, offset, constant. Source: `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    constant: i32,
}

/// Builds instructions. Registers: 0 result, 1 context, 2 kind, 3 access, 4 major, 5 minor, 6 scratch.
mod op {
    use super::Instruction;

    fn insn(code: u8, destination: u8, source: u8, offset: i16, constant: i32) -> Instruction {
        Instruction { code, registers: destination | source << 4, offset, constant }
    }
    /// Loads a 32-bit word of the context.
    pub(super) fn load(destination: u8, offset: i16) -> Instruction {
        insn(0x61, destination, 1, offset, 0)
    }
    pub(super) fn copy(destination: u8, source: u8) -> Instruction {
        insn(0xbc, destination, source, 0, 0)
    }
    pub(super) fn set(destination: u8, value: i32) -> Instruction {
        insn(0xb4, destination, 0, 0, value)
    }
    pub(super) fn and(destination: u8, value: i32) -> Instruction {
        insn(0x54, destination, 0, 0, value)
    }
    pub(super) fn shift_right(destination: u8, bits: i32) -> Instruction {
        insn(0x74, destination, 0, 0, bits)
    }
    /// Jumps over `offset` instructions unless the register has this value.
    pub(super) fn skip_unless(register: u8, value: i32, offset: i16) -> Instruction {
        insn(0x56, register, 0, offset, value)
    }
    /// Jumps over `offset` instructions if any of these bits is set.
    pub(super) fn skip_if_any(register: u8, bits: i32, offset: i16) -> Instruction {
        insn(0x46, register, 0, offset, bits)
    }
    pub(super) fn exit() -> Instruction {
        insn(0x95, 0, 0, 0, 0)
    }
}

/// Compiles rules: the last rule that decides about the whole access wins; without one it is denied.
///
/// An allowing rule decides when it covers all that is asked for, a denying one when it covers any of it.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // The context is `u32 access_type (access << 16 | kind), u32 major, u32 minor`.
    let mut program = vec![
        op::load(2, 0),
        op::copy(3, 2),
        op::and(2, 0xffff),
        op::shift_right(3, 16),
        op::load(4, 4),
        op::load(5, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        if decides_always(rule) {
            // The kernel refuses a program with instructions that are never reached.
            return program;
        }
    }
    program.extend([op::set(0, 0), op::exit()]);
    program
}

/// Whether no access gets past this rule.
fn decides_always(rule: &DeviceRule) -> bool {
    rule.kind.is_none()
        && rule.major.is_none()
        && rule.minor.is_none()
        && rule.read
        && rule.write
        && rule.mknod
}

fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let access = i32::from(rule.read) * BPF_DEVCG_ACC_READ
        + i32::from(rule.write) * BPF_DEVCG_ACC_WRITE
        + i32::from(rule.mknod) * BPF_DEVCG_ACC_MKNOD;
    let mut tests: Vec<Box<dyn Fn(i16) -> Instruction>> = Vec::new();
    if let Some(kind) = rule.kind {
        let kind = match kind {
            DeviceKind::Char => BPF_DEVCG_DEV_CHAR,
            DeviceKind::Block => BPF_DEVCG_DEV_BLOCK,
        };
        tests.push(Box::new(move |skip| op::skip_unless(2, kind, skip)));
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            tests.push(Box::new(move |skip| op::skip_unless(register, number.cast_signed(), skip)));
        }
    }
    let all = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE | BPF_DEVCG_ACC_MKNOD;
    let mut body: Vec<Instruction> = Vec::new();
    if access != all {
        if rule.allow {
            // Skip when something else is asked for as well.
            tests.push(Box::new(move |skip| op::skip_if_any(3, all & !access, skip)));
        } else {
            body.extend([op::copy(6, 3), op::and(6, access)]);
        }
    }
    let verdict = [op::set(0, i32::from(rule.allow)), op::exit()];
    let partial_denial = !body.is_empty();
    let tail = verdict.len() + body.len() + usize::from(partial_denial);
    let count = tests.len();
    let mut block: Vec<Instruction> = tests
        .into_iter()
        .enumerate()
        .map(|(index, test)| test(i16::try_from(count - index - 1 + tail).expect("a block is short")))
        .collect();
    block.append(&mut body);
    if partial_denial {
        // `skip_if_any` would jump the wrong way: a denial with nothing in common is no denial.
        block.push(Instruction { code: 0x16, registers: 6, offset: 2, constant: 0 });
    }
    block.extend(verdict);
    block
}

/// Loads the program and attaches it to the group that `group` is an open directory of.
///
/// # Errors
/// Those of `bpf(2)`, for example `EPERM` without `CAP_BPF`.
pub(super) fn attach(group: impl AsFd, rules: &[DeviceRule]) -> io::Result<()> {
    let program = compile(rules);
    let license = c"Apache-2.0";
    // The head of `union bpf_attr` for BPF_PROG_LOAD: type, count, instructions, license.
    let mut attr = [0u64; 16];
    attr[0] = u64::from(BPF_PROG_TYPE_CGROUP_DEVICE) | (program.len() as u64) << 32;
    attr[1] = program.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    let loaded = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    // For BPF_PROG_ATTACH: target, program, type, flags.
    let mut attr = [0u64; 16];
    let number = |fd: i32| u64::from(fd.cast_unsigned());
    attr[0] = number(group.as_fd().as_raw_fd()) | number(loaded.as_raw_fd()) << 32;
    attr[1] = u64::from(BPF_CGROUP_DEVICE) | u64::from(BPF_F_ALLOW_MULTI) << 32;
    bpf(BPF_PROG_ATTACH, &attr).map(drop)
}

fn bpf(command: i64, attr: &[u64; 16]) -> io::Result<i32> {
    // SAFETY: `attr` is as large as said and what it points to outlives the call; unused bytes are zero, as the kernel
    // demands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i32; 11];
        let mut at = 0usize;
        loop {
            let insn = program[at];
            let (to, from) = ((insn.registers & 15) as usize, (insn.registers >> 4) as usize);
            at += 1;
            let mut jump = |condition: bool| {
                if condition {
                    at = at.checked_add_signed(insn.offset as isize).unwrap();
                }
            };
            match insn.code {
                0x61 => registers[to] = context[insn.offset as usize / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = insn.constant,
                0x54 => registers[to] &= insn.constant,
                0x74 => registers[to] >>= insn.constant,
                0x56 => jump(registers[to] != insn.constant),
                0x46 => jump(registers[to] & insn.constant != 0),
                0x16 => jump(registers[to] == insn.constant),
                0x95 => return registers[0] != 0,
                code => panic!("unknown operation {code:#x}"),
            }
        }
    }

    const READ: i32 = BPF_DEVCG_ACC_READ;
    const WRITE: i32 = BPF_DEVCG_ACC_WRITE;
    const MKNOD: i32 = BPF_DEVCG_ACC_MKNOD;

    /// Follows every branch, as the kernel does before it accepts a program.
    fn assert_all_is_reached(program: &[Instruction]) {
        let mut reached = vec![false; program.len()];
        let mut open = vec![0usize];
        while let Some(at) = open.pop() {
            assert!(at < program.len(), "runs past its end");
            if std::mem::replace(&mut reached[at], true) || program[at].code == 0x95 {
                continue;
            }
            open.push(at + 1);
            if matches!(program[at].code, 0x56 | 0x46 | 0x16) {
                open.push(at + 1 + usize::try_from(program[at].offset).unwrap());
            }
        }
        assert!(reached.iter().all(|&reached| reached), "never reached: {reached:?}");
    }

    #[test]
    fn no_program_has_instructions_that_are_never_reached() {
        let rule = |allow, read| DeviceRule {
            allow,
            kind: None,
            major: None,
            minor: None,
            read,
            write: true,
            mknod: true,
        };
        for rules in [
            vec![],
            crate::defaults::device_rules(false),
            crate::defaults::device_rules(true),
            vec![rule(false, true)],
            vec![rule(false, true), rule(true, false), rule(false, false)],
            vec![rule(true, false), rule(true, true), rule(false, false)],
        ] {
            assert_all_is_reached(&compile(&rules));
        }
    }

    #[test]
    fn docker_rules_allow_what_docker_allows() {
        let program = compile(&crate::defaults::device_rules(false));
        for (kind, access, major, minor, expect) in [
            (BPF_DEVCG_DEV_CHAR, READ | WRITE, 1, 3, true),
            (BPF_DEVCG_DEV_CHAR, READ | WRITE | MKNOD, 136, 7, true),
            (BPF_DEVCG_DEV_CHAR, READ | WRITE, 5, 2, true),
            (BPF_DEVCG_DEV_CHAR, MKNOD, 10, 200, true),
            (BPF_DEVCG_DEV_CHAR, READ, 10, 200, false),
            (BPF_DEVCG_DEV_CHAR, READ | MKNOD, 10, 200, false),
            (BPF_DEVCG_DEV_BLOCK, MKNOD, 8, 0, true),
            (BPF_DEVCG_DEV_BLOCK, READ, 8, 0, false),
            (BPF_DEVCG_DEV_BLOCK, READ, 1, 3, false),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), expect, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn a_later_rule_takes_a_part_away() {
        let everything = DeviceRule {
            allow: true,
            kind: None,
            major: None,
            minor: None,
            read: true,
            write: true,
            mknod: true,
        };
        let no_write = DeviceRule { allow: false, major: Some(8), read: false, mknod: false, ..everything };
        let program = compile(&[everything, no_write]);
        assert!(run(&program, BPF_DEVCG_DEV_BLOCK, READ, 8, 1));
        assert!(!run(&program, BPF_DEVCG_DEV_BLOCK, READ | WRITE, 8, 1));
        assert!(run(&program, BPF_DEVCG_DEV_BLOCK, READ | WRITE, 9, 1));
        assert!(!run(&compile(&[]), BPF_DEVCG_DEV_CHAR, READ, 1, 3));
    }
}
