//! Decides which system calls a container may use, and compiles that to the kernel's filter language.
//!
//! In: a profile and the process's capabilities. Out: a classic BPF program: a look at the architecture, then a binary
//! search over ranges of call numbers. Never loads it (see `process.rs`).

mod assemble;
mod rules;
mod table;

use serde::{Deserialize, Serialize};

use crate::spec::Capabilities;
use assemble::{Abi, Verdict};

/// Which system calls a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Docker's default profile.
    #[default]
    Default,
    /// All of them.
    Unconfined,
}

/// Source: `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;

/// Marks a call of x86_64's x32 mode. Source: `asm/unistd.h`, `__X32_SYSCALL_BIT`.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Compiles Docker's default profile for a process with these capabilities in its bounding set.
///
/// A call of an architecture that the profile does not know kills the process.
#[must_use]
pub fn compile(capabilities: Capabilities) -> Vec<libc::sock_filter> {
    assemble::program(&abis(&rules::verdicts(capabilities)))
}

/// The calls of each architecture that this kernel may run, by number.
#[cfg(target_arch = "x86_64")]
fn abis(verdicts: &[(table::Row, Verdict)]) -> Vec<Abi> {
    let number = |number: i16| u32::try_from(number).ok();
    let mut wide: Vec<(u32, Verdict)> =
        verdicts.iter().filter_map(|(row, verdict)| Some((number(row.1)?, *verdict))).collect();
    // Where x32 has other numbers, x86_64 has none: one table serves both.
    wide.extend(table::X32.iter().map(|number| (*number, Verdict::Allow)));
    let narrow = verdicts.iter().filter_map(|(row, verdict)| Some((number(row.2)?, *verdict))).collect();
    vec![
        Abi {
            audit: AUDIT_ARCH_X86_64,
            ignored_bit: Some(X32_BIT),
            last_known: table::LAST_KNOWN,
            calls: wide,
        },
        Abi { audit: AUDIT_ARCH_I386, ignored_bit: None, last_known: table::LAST_KNOWN, calls: narrow },
    ]
}

/// The calls of the one architecture that is known here, by number.
#[cfg(target_arch = "aarch64")]
fn abis(verdicts: &[(table::Row, Verdict)]) -> Vec<Abi> {
    let calls =
        verdicts.iter().filter_map(|(row, verdict)| Some((u32::try_from(row.3).ok()?, *verdict))).collect();
    vec![Abi { audit: AUDIT_ARCH_AARCH64, ignored_bit: None, last_known: table::LAST_KNOWN, calls }]
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    /// Runs a filter as the kernel would.
    fn run(filter: &[libc::sock_filter], arch: u32, call: u32, args: [u64; 2]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&call.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[16..24].copy_from_slice(&args[0].to_le_bytes());
        data[24..32].copy_from_slice(&args[1].to_le_bytes());
        let (mut at, mut value) = (0usize, 0u32);
        loop {
            let insn = filter[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { insn.jt } else { insn.jf });
            match insn.code {
                0x20 => {
                    value = u32::from_le_bytes(data[insn.k as usize..insn.k as usize + 4].try_into().unwrap())
                }
                0x54 => value &= insn.k,
                0x15 => branch(value == insn.k),
                0x35 => branch(value >= insn.k),
                0x45 => branch(value & insn.k != 0),
                0x05 => at += insn.k as usize,
                0x06 => return insn.k,
                code => panic!("unknown operation {code:#x}"),
            }
        }
    }

    fn number(name: &str) -> (u32, u32) {
        let row = table::ROWS.iter().find(|row| row.0 == name).unwrap();
        (u32::try_from(row.1).unwrap_or(u32::MAX), u32::try_from(row.2).unwrap_or(u32::MAX))
    }

    fn plain() -> Vec<libc::sock_filter> {
        compile(crate::defaults::capabilities())
    }

    #[test]
    fn every_call_of_the_table_gets_the_verdict_of_the_profile() {
        for capabilities in [Capabilities(0), crate::defaults::capabilities(), Capabilities(!0)] {
            let filter = compile(capabilities);
            for (row, verdict) in rules::verdicts(capabilities) {
                let expect = match verdict {
                    Verdict::Allow => ALLOW,
                    Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
                    Verdict::FirstArgument(_) | Verdict::NoneOf(_) => continue,
                };
                for (arch, number) in [(AUDIT_ARCH_X86_64, row.1), (AUDIT_ARCH_I386, row.2)] {
                    if let Ok(number) = u32::try_from(number) {
                        assert_eq!(run(&filter, arch, number, [0; 2]), expect, "{}", row.0);
                    }
                }
            }
        }
    }

    #[test]
    fn calls_outside_the_profile_are_not_permitted() {
        let filter = plain();
        // keyctl, add_key, userfaultfd, io_uring_setup, kexec_load, swapon
        for call in [250, 248, 323, 425, 246, 167] {
            assert_eq!(run(&filter, AUDIT_ARCH_X86_64, call, [0; 2]), EPERM, "{call}");
        }
        for name in ["mount", "unshare", "setns", "bpf", "perf_event_open", "open_by_handle_at", "reboot"] {
            assert_eq!(run(&filter, AUDIT_ARCH_X86_64, number(name).0, [0; 2]), EPERM, "{name}");
            assert_eq!(run(&filter, AUDIT_ARCH_I386, number(name).1, [0; 2]), EPERM, "{name}");
        }
    }

    #[test]
    fn calls_newer_than_the_table_are_not_implemented() {
        let filter = plain();
        for call in [table::LAST_KNOWN + 1, 5000, !X32_BIT] {
            assert_eq!(run(&filter, AUDIT_ARCH_X86_64, call, [0; 2]), ENOSYS);
            assert_eq!(run(&filter, AUDIT_ARCH_I386, call, [0; 2]), ENOSYS);
        }
        assert_eq!(run(&filter, AUDIT_ARCH_X86_64, number("clone3").0, [0; 2]), ENOSYS);
        assert_eq!(run(&compile(Capabilities(!0)), AUDIT_ARCH_X86_64, number("clone3").0, [0; 2]), ALLOW);
    }

    #[test]
    fn arguments_are_looked_at_in_full_width() {
        let filter = plain();
        let check = |name: &str, argument: u64, expect: u32| {
            assert_eq!(
                run(&filter, AUDIT_ARCH_X86_64, number(name).0, [argument, 0]),
                expect,
                "{name} {argument:#x}"
            );
        };
        check("socket", 2, ALLOW);
        check("socket", 16, ALLOW);
        check("socket", 17, ALLOW);
        check("socket", 40, EPERM); // AF_VSOCK
        check("socket", 38, EPERM); // AF_ALG
        check("socket", 38 | 1 << 32, EPERM);
        check("socket", 2 | 1 << 32, EPERM);
        check("personality", 0, ALLOW);
        check("personality", 0x20008, ALLOW);
        check("personality", 0xffff_ffff, ALLOW);
        check("personality", 0x0004_0000, EPERM); // ADDR_NO_RANDOMIZE
        check("clone", 0x11, ALLOW);
        check("clone", 0x003d_0f00, ALLOW);
        check("clone", 0x1000_0011, EPERM); // CLONE_NEWUSER
        check("clone", 0x0002_0011, EPERM); // CLONE_NEWNS
    }

    #[test]
    fn x32_calls_are_judged_like_their_twins_and_strange_architectures_are_killed() {
        let filter = plain();
        assert_eq!(run(&filter, AUDIT_ARCH_X86_64, X32_BIT | number("read").0, [0; 2]), ALLOW);
        assert_eq!(run(&filter, AUDIT_ARCH_X86_64, X32_BIT | number("mount").0, [0; 2]), EPERM);
        assert_eq!(run(&filter, AUDIT_ARCH_X86_64, X32_BIT | 512, [0; 2]), ALLOW);
        assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 2]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let with = |name: &str| Capabilities(1 << crate::defaults::capability_bit(name).unwrap());
        for (capability, call) in [
            ("SYS_ADMIN", "mount"),
            ("SYS_TIME", "clock_settime"),
            ("SYS_PTRACE", "kcmp"),
            ("SYSLOG", "syslog"),
            ("BPF", "bpf"),
            ("PERFMON", "perf_event_open"),
            ("SYS_CHROOT", "chroot"),
            ("DAC_READ_SEARCH", "open_by_handle_at"),
            ("SYS_NICE", "mbind"),
        ] {
            let call = number(call).0;
            assert_eq!(
                run(&compile(with(capability)), AUDIT_ARCH_X86_64, call, [0; 2]),
                ALLOW,
                "{capability}"
            );
            assert_eq!(
                run(&compile(Capabilities(0)), AUDIT_ARCH_X86_64, call, [0; 2]),
                EPERM,
                "{capability}"
            );
        }
    }

    #[test]
    fn a_call_is_judged_in_few_steps() {
        let filter = plain();
        assert!(filter.len() < 1000, "{} instructions", filter.len());
    }
}
