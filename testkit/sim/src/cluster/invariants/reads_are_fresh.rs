//! A read sees everything that anybody was told is committed before it was asked for, whichever manager answers.

/// `promised` is the newest entry that anybody had been told of when it was asked for, `read` the newest one it saw.
pub(crate) fn check(promised: Option<u64>, read: u64) -> Result<(), String> {
    match promised {
        Some(promised) if promised > read => {
            Err(format!("entry {promised} was acknowledged before a read that saw {read}"))
        }
        _ => Ok(()),
    }
}
