//! Every write of an object gives it a higher version, and never another id or time of birth.

use store::Change;

pub(super) fn check(changes: &[Change]) -> Result<(), String> {
    for change in changes {
        let (Some(before), Some(after)) = (&change.before, &change.after) else { continue };
        let (old, new) = (before.meta(), after.meta());
        if new.version <= old.version || new.created_at != old.created_at || after.id() != before.id() {
            return Err(format!("version or identity of {} {} went wrong", change.kind, change.id));
        }
    }
    Ok(())
}
