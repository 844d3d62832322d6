//! When a node asks for its next certificate.
//!
//! In: the life of the present one and a random number. Out: a time. Never draws the number: the caller does.

use objects::Timestamp;

/// A moment between 50 and 80 % of a certificate's life; each `random` gives one, all evenly likely.
///
/// Nodes that got their certificates together so do not ask for the next ones together. The life is counted from
/// `valid_from`, which is an hour before the certificate was made.
/// Source: swarmkit, `ca/renewer.go` (`calculateRandomExpiry`).
#[must_use]
pub fn renewal_moment(valid_from: Timestamp, valid_until: Timestamp, random: u64) -> Timestamp {
    let life = i128::from(valid_until.0) - i128::from(valid_from.0);
    let (earliest, span) = (life / 2, life * 3 / 10);
    let offset = span * i128::from(random) / (i128::from(u64::MAX) + 1);
    let moment = i128::from(valid_from.0) + earliest + offset;
    Timestamp(i64::try_from(moment).unwrap_or(valid_until.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_lies_between_half_and_four_fifths_of_the_life() {
        let (from, until) = (Timestamp(1_000), Timestamp(2_000));
        assert_eq!(renewal_moment(from, until, 0), Timestamp(1_500));
        assert_eq!(renewal_moment(from, until, u64::MAX), Timestamp(1_799));
        assert_eq!(renewal_moment(from, until, u64::MAX / 2), Timestamp(1_649));
    }

    #[test]
    fn a_life_of_no_length_and_the_longest_do_not_overflow() {
        assert_eq!(renewal_moment(Timestamp(5), Timestamp(5), u64::MAX), Timestamp(5));
        let late = renewal_moment(Timestamp(i64::MIN), Timestamp(i64::MAX), u64::MAX);
        assert!(late > Timestamp(0) && late < Timestamp(i64::MAX));
    }
}
