//! Tells one life of this machine from the next: what ran before it was restarted did not end by itself.
//!
//! In: the kernel's boot id, and when the first process was started, which is another one also where several machines share
//! a kernel. Out: a text to compare. Never says whether a restart was asked for.

use std::fs;

/// A text that is another one after each restart of the machine; empty when it cannot be told, which is logged.
pub(crate) fn life() -> String {
    let read =
        |path: &str| fs::read_to_string(path).inspect_err(|error| tracing::warn!(path, %error, "not read"));
    let (Ok(boot), Ok(first)) = (read("/proc/sys/kernel/random/boot_id"), read("/proc/1/stat")) else {
        return String::new();
    };
    started_at(&first).map(|at| format!("{} {at}", boot.trim())).unwrap_or_default()
}

/// When a process was started, in ticks since the kernel was. Source: proc(5), field 22 of `stat`; the name before it may
/// have blanks and braces.
fn started_at(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_found_behind_any_name() {
        let stat = "1 (a) b (c)) S 0 1 1 0 -1 4194560 15 7 3 1 5 6 8 9 20 0 1 0 4242 22 33";
        assert_eq!(started_at(stat), Some(4242));
        assert_eq!(started_at("1 (init"), None);
    }

    #[test]
    fn a_machine_has_one_life_at_a_time() {
        let life = life();
        assert!(life.len() > 36, "{life:?}");
        assert_eq!(life, super::life());
    }
}
